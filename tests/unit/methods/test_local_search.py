import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_baselines import trials_of

from bonas_core.methods.base import initial_design
from bonas_core.methods.local_search import LocalSearch
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.pool import PoolSpace
from bonas_core.trials import Trials

SPACE = NASBench201()
SIZE = SPACE.size


def landscape(seed: int) -> np.ndarray:
    """A score for every cell; rugged, so that there are local optima."""
    cells = SPACE.enumerate()
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(6, 5))
    return weights[np.arange(6), cells].sum(axis=1) + rng.normal(size=SIZE)


def told(genotypes: np.ndarray, values: np.ndarray) -> Trials:
    return trials_of(genotypes, scores=values[SPACE.keys(genotypes).astype(int)])


def search(values: np.ndarray, count: int, batch: int, move: str = "best", fresh: bool = False, seed: int = 0):
    """Trials and the sampler of each; `fresh`: with a new strategy at every call."""
    strategy = LocalSearch(SPACE, move=move)  # type: ignore[arg-type]
    genotypes, samplers = np.zeros((0, 6), dtype=np.int8), []
    while len(genotypes) < count:
        strategy = LocalSearch(SPACE, move=move) if fresh else strategy  # type: ignore[arg-type]
        proposals = strategy.propose(told(genotypes, values), batch, seed)
        genotypes = np.concatenate([genotypes, *(p.genotype[None] for p in proposals)])
        samplers += [p.sampler for p in proposals]
    return told(genotypes, values), samplers


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int((one != other).sum())


def test_the_first_walk_starts_at_the_best_of_the_initial_cells():
    values = landscape(0)
    trials, samplers = search(values, 20, 1)
    start = trials.genotypes[trials.scores[:10].argmax()]
    assert samplers[:10] == ["initial"] * 10
    assert all(distance(start, cell) == 1 for cell in trials.genotypes[10:20])


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_every_cell_is_a_neighbour_of_a_reference_walk(seed: int):
    """Compares with a walk that is written as the algorithm is told: go to the best neighbour, restart."""
    values = landscape(seed)
    trials, samplers = search(values, 150, 1, seed=seed)
    current, row = int(trials.scores[:10].argmax()), 10
    keys = trials.keys.tolist()
    while row < 150:
        around = SPACE.neighbours(trials.genotypes[current])
        wanted = {int(key) for key in SPACE.keys(around)} - {int(key) for key in keys[:row]}
        step = keys[row : row + len(wanted)]
        if row + len(wanted) > 150:
            assert set(step) <= wanted
            return
        assert set(step) == wanted
        assert samplers[row : row + len(wanted)] == ["neighbour"] * len(wanted)
        row += len(wanted)
        best = max((int(key) for key in SPACE.keys(around)), key=lambda key: values[key])
        if values[best] > trials.scores[current]:
            current = keys.index(best)
        elif row < 150:
            assert samplers[row] == "restart"
            current, row = row, row + 1


@pytest.mark.parametrize("move", ["best", "first"])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_walk_replayed_from_the_trials_is_the_walk_that_was_remembered(move: str, batch: int):
    values = landscape(3)
    remembered, _ = search(values, 200, batch, move)
    replayed, _ = search(values, 200, batch, move, fresh=True)
    np.testing.assert_array_equal(remembered.genotypes, replayed.genotypes)


def test_the_first_improvement_is_taken_at_once():
    values = landscape(1)
    trials, _ = search(values, 40, 1, "first")
    current, previous = int(trials.scores[:10].argmax()), 10
    for row in range(10, 40):
        assert distance(trials.genotypes[current], trials.genotypes[row]) == 1
        if trials.scores[row] > trials.scores[current]:
            current, previous = row, row
        elif row - previous >= 24:
            return
    assert trials.scores[current] > trials.scores[:10].max()


def test_a_local_optimum_is_left_for_a_random_cell():
    values = np.zeros(SIZE)
    genotypes = initial_design(SPACE, 10, 0)
    optimum = genotypes[4]
    values[int(SPACE.keys(optimum[None])[0])] = 1.0
    trials, samplers = search(values, 70, 1)
    assert samplers.count("restart") >= 1
    restart = samplers.index("restart")
    assert all(distance(optimum, cell) == 1 for cell in trials.genotypes[10:restart])
    around = {int(key) for key in SPACE.keys(SPACE.neighbours(optimum))}
    assert around <= set(trials.keys[:restart].tolist())
    after = trials.genotypes[restart + 1 : restart + 10]
    assert all(distance(trials.genotypes[restart], cell) == 1 for cell in after)


def test_a_batch_goes_on_to_the_next_walk_when_the_neighbourhood_is_in_it():
    values = landscape(2)
    trials = told(initial_design(SPACE, 10, 0), values)
    samplers = [p.sampler for p in LocalSearch(SPACE).propose(trials, 40, 0)]
    assert 10 < samplers.index("restart") <= 24
    assert samplers.count("restart") == 1
    assert set(samplers[samplers.index("restart") + 1 :]) == {"neighbour"}


def test_neighbours_that_failed_or_diverged_count_as_seen():
    genotypes = initial_design(SPACE, 10, 0)
    start = genotypes[0]
    around = SPACE.neighbours(start)
    cells = np.concatenate([genotypes, around[~np.isin(SPACE.keys(around), SPACE.keys(genotypes))]])
    n = len(cells)
    scores = np.full(n, np.nan)
    scores[:10] = np.linspace(1, 0, 10)
    diverged = np.arange(n) % 2 == 0
    diverged[:10] = False
    trials = Trials(cells, SPACE.keys(cells), scores, np.ones(n, dtype=bool), diverged)
    assert LocalSearch(SPACE).propose(trials, 1, 0)[0].sampler == "restart"


def test_a_restart_that_failed_is_followed_by_another():
    values = np.zeros(SIZE)
    trials, samplers = search(values, 36, 1)
    restart = samplers.index("restart")
    before = trials.first(restart + 1)
    scores = before.scores.copy()
    scores[restart] = np.nan
    failed = Trials(before.genotypes, before.keys, scores, before.finished, before.diverged)
    assert LocalSearch(SPACE).propose(failed, 1, 0)[0].sampler == "restart"
    diverged = Trials(before.genotypes, before.keys, scores, before.finished, np.arange(restart + 1) == restart)
    assert LocalSearch(SPACE).propose(diverged, 1, 0)[0].sampler == "neighbour"


def test_cells_without_neighbours_are_visited_one_after_the_other():
    lonely = SPACE.enumerate()[[0, 31 + 625 * 3, 15624, 7812 - 1200]]
    space = PoolSpace(SPACE, lonely)
    genotypes = np.zeros((0, 6), dtype=np.int8)
    strategy = LocalSearch(space, initial=2)
    while proposals := strategy.propose(trials_of(genotypes, space), 1, 0):
        genotypes = np.concatenate([genotypes, proposals[0].genotype[None]])
    assert len(genotypes) == 4
