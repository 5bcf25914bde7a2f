import numpy as np

from bonas_core.methods.base import initial_design
from bonas_core.methods.linear import Linear
from bonas_core.search import run
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.testing import toy_problem
from bonas_core.trials import Trials

SPACE = NASBench201()


def test_cells_that_a_linear_model_predicts_best_come_first():
    cells = initial_design(SPACE, 60, 0)
    scores = (cells == 3).sum(axis=1).astype(float)  # linear in the labels
    trials = Trials(cells, SPACE.keys(cells), scores, np.ones(60, dtype=bool), np.zeros(60, dtype=bool))
    ranking = Linear(SPACE, initial=5).rank(trials, seed=0)
    actual = (ranking.genotypes == 3).sum(axis=1)
    assert actual[:20].mean() > np.sort(actual)[-40:].mean() - 0.5
    assert np.corrcoef(ranking.mean, actual)[0, 1] > 0.95


def test_it_finds_a_better_cell_than_random_search():
    best = {
        name: np.mean([run(toy_problem(30, seed, method={"name": name})).best.objective for seed in range(5)])
        for name in ("linear", "random")
    }
    assert best["linear"] > best["random"] + 0.05
