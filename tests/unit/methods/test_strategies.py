"""What every strategy owes, whatever it learns."""

from collections.abc import Callable

import numpy as np
import pytest
from test_baselines import Endless, searched, small_pool, trials_of

from bonas_core.methods.bananas import Bananas
from bonas_core.methods.base import Strategy, initial_design
from bonas_core.methods.local_search import LocalSearch
from bonas_core.methods.optuna.strategy import OptunaStrategy, gp, tpe
from bonas_core.methods.perceptrons import MLPEnsemble
from bonas_core.methods.random_search import RandomSearch
from bonas_core.methods.regularised_evolution import RegularisedEvolution
from bonas_core.methods.weaknas import WeakNAS
from bonas_core.spaces.base import SearchSpace
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.trials import Trials

SPACE = NASBench201()
SMALL = MLPEnsemble(layers=2, width=16, members=3, epochs=60, learning_rate=0.01)

Make = Callable[[SearchSpace], Strategy]
MAKERS: dict[str, Make] = {
    "local-search best": LocalSearch,
    "local-search first": lambda space: LocalSearch(space, move="first"),
    "bananas": lambda space: Bananas(space, ensemble=SMALL),
    "weaknas": lambda space: WeakNAS(space, predictor=SMALL),
    "optuna-tpe": lambda space: OptunaStrategy(space, "optuna-tpe", tpe, tries=8),
    "optuna-gp": lambda space: OptunaStrategy(space, "optuna-gp", gp, tries=3),
}
every_strategy = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
fast_strategies = pytest.mark.parametrize(
    "make", [make for name, make in MAKERS.items() if name != "optuna-gp"], ids=[n for n in MAKERS if n != "optuna-gp"]
)


def cells_of(strategy: Strategy, trials: Trials, count: int, seed: int = 0) -> list[list[int]]:
    return [p.genotype.tolist() for p in strategy.propose(trials, count, seed)]


def with_states(trials: Trials, failed: list[int], diverged: list[int], in_flight: list[int]) -> Trials:
    scores, finished, gone = trials.scores.copy(), trials.finished.copy(), trials.diverged.copy()
    scores[[*failed, *diverged, *in_flight]] = np.nan
    finished[in_flight] = False
    gone[diverged] = True
    return Trials(trials.genotypes, trials.keys, scores, finished, gone)


@every_strategy
def test_each_is_a_strategy(make: Make):
    assert isinstance(make(SPACE), Strategy)


@every_strategy
def test_proposals_depend_on_trials_and_seed_alone(make: Make):
    trials = trials_of(initial_design(SPACE, 24, 0))
    used = make(SPACE)
    used.propose(trials.first(13), 2, 7)
    used.propose(trials, 2, 9)
    first = cells_of(used, trials, 3, 7)
    assert first == cells_of(make(SPACE), trials, 3, 7)


@fast_strategies  # the candidate that a Gaussian process holds for the best may well be the same for two seeds
def test_another_seed_gives_other_proposals(make: Make):
    trials = trials_of(initial_design(SPACE, 24, 0))
    assert cells_of(make(SPACE), trials, 3, 7) != cells_of(make(SPACE), trials, 3, 8)


@every_strategy
def test_a_result_that_changes_after_all_is_noticed(make: Make):
    trials = trials_of(initial_design(SPACE, 24, 0))
    turned = Trials(trials.genotypes, trials.keys, -trials.scores, trials.finished, trials.diverged)
    used = make(SPACE)
    used.propose(trials, 3, 0)
    assert cells_of(used, turned, 3) == cells_of(make(SPACE), turned, 3)


@every_strategy
def test_searches_begin_with_the_initial_design(make: Make):
    trials = searched(make(SPACE), 10, batch=4)
    np.testing.assert_array_equal(trials.genotypes[:10], initial_design(SPACE, 10, 0))


@fast_strategies
@pytest.mark.parametrize("batch", [1, 7])
def test_no_cell_is_proposed_twice(make: Make, batch: int):
    trials = searched(make(SPACE), 60, batch=batch)
    assert len(np.unique(trials.keys)) == len(trials) >= 60


@every_strategy
def test_a_batch_holds_different_cells_that_no_trial_has(make: Make):
    trials = trials_of(initial_design(SPACE, 24, 0))
    keys = SPACE.keys(np.stack([p.genotype for p in make(SPACE).propose(trials, 12, 0)]))
    assert len(np.unique(keys)) == 12
    assert not np.isin(keys, trials.keys).any()


@fast_strategies
@pytest.mark.parametrize("batch", [1, 6])
def test_a_used_up_space_ends_the_search(make: Make, batch: int):
    space = small_pool(40)
    trials = searched(make(space), 1000, batch=batch, space=space)
    assert sorted(trials.keys.tolist()) == sorted(space.keys(space.enumerate()).tolist())


@fast_strategies
def test_a_space_smaller_than_the_initial_design_is_searched_to_its_end(make: Make):
    space = small_pool(6)
    assert len(searched(make(space), 1000, batch=4, space=space)) == 6


@every_strategy
def test_trials_without_scores_are_not_proposed_again(make: Make):
    trials = trials_of(initial_design(SPACE, 24, 0))
    trials = with_states(trials, failed=[2, 15], diverged=[3, 16], in_flight=[4, 20, 23])
    keys = SPACE.keys(np.stack([p.genotype for p in make(SPACE).propose(trials, 6, 0)]))
    assert len(np.unique(keys)) == 6
    assert not np.isin(keys, trials.keys).any()


@every_strategy
@pytest.mark.parametrize("state", ["failed", "diverged", "in_flight"])
def test_a_search_goes_on_where_no_trial_has_a_score(make: Make, state: str):
    rows: dict[str, list[int]] = {"failed": [], "diverged": [], "in_flight": [], state: list(range(12))}
    trials = with_states(trials_of(initial_design(SPACE, 12, 0)), **rows)
    keys = SPACE.keys(np.stack([p.genotype for p in make(SPACE).propose(trials, 3, 0)]))
    assert len(np.unique(keys)) == 3
    assert not np.isin(keys, trials.keys).any()


@fast_strategies
def test_one_max_is_climbed_faster_than_at_random(make: Make):
    found, random = (
        np.mean([searched(strategy, 90, seed).scores.max() for seed in range(3)])
        for strategy in (make(SPACE), RandomSearch(SPACE))
    )
    assert found > random
    assert found >= 5 / 6


@fast_strategies
def test_a_space_that_cannot_be_enumerated_is_searched(make: Make):
    trials = searched(make(Endless()), 40, batch=3, space=Endless())
    assert len(np.unique(trials.keys)) == len(trials) >= 40


@every_strategy
def test_cells_of_different_sizes_are_searched(make: Make):
    whole = NASBench101(sampling="authors")
    cells = whole.sample(80, np.random.default_rng(1))
    _, first = np.unique(whole.keys(cells), return_index=True)
    cells = cells[np.sort(first)][:20]
    n = len(cells)
    scores = (cells[:, :21].sum(axis=1) / 21).astype(float)
    trials = Trials(cells, whole.keys(cells), scores, np.ones(n, dtype=bool), np.zeros(n, dtype=bool))
    space = NASBench101Endless()
    keys = space.keys(np.stack([p.genotype for p in make(space).propose(trials, 3, 0)]))
    assert len(np.unique(keys)) == 3
    assert not np.isin(keys, trials.keys).any()


class NASBench101Endless(NASBench101):
    """The cells, drawn as the authors do, without the enumeration."""

    size = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(sampling="authors")


def test_the_literal_algorithm_leaves_failed_cells_alone():
    parent = SPACE.enumerate()[777]
    neighbours = SPACE.neighbours(parent)
    trials = trials_of(np.concatenate([neighbours[:20], parent[None]]))
    trials = with_states(trials, failed=list(range(10)), diverged=list(range(10, 20)), in_flight=[])
    strategy = RegularisedEvolution(SPACE, population=1, tournament=1, repeats=True)
    keys = SPACE.keys(np.stack([p.genotype for p in strategy.propose(trials, 50, 0)]))
    assert len(keys) == 50
    assert not np.isin(keys, trials.keys[:20]).any()


def test_with_replacement_the_worst_may_win_a_tournament_of_all():
    genotypes = initial_design(SPACE, 3, 0)
    trials = trials_of(genotypes, scores=np.array([0.1, 0.2, 0.3]))
    for replacement in (False, True):
        strategy = RegularisedEvolution(SPACE, population=3, tournament=3, repeats=True, replacement=replacement)
        children = np.stack([p.genotype for p in strategy.propose(trials, 400, 0)])
        of_the_best = ((children != genotypes[2]).sum(axis=1) == 1).mean()
        # each tournament of three draws misses the best with chance (2/3)^3
        assert of_the_best == 1 if not replacement else 0.6 < of_the_best < 0.8
