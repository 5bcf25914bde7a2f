import numpy as np
import pytest

from bonas_core.methods.base import Strategy, initial_design
from bonas_core.methods.random_search import RandomSearch
from bonas_core.methods.regularised_evolution import RegularisedEvolution
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.pool import PoolSpace
from bonas_core.trials import Trials

SPACE = NASBench201()


class Endless(NASBench201):
    """The same cells, without saying how many there are."""

    size = None  # type: ignore[assignment]


def small_pool(count: int) -> PoolSpace:
    return PoolSpace(SPACE, SPACE.enumerate()[np.random.default_rng(5).permutation(SPACE.size)[:count]])


def one_max(genotypes: Genotypes) -> np.ndarray:
    """Share of the operations that are 3x3 convolutions."""
    return (genotypes == 3).mean(axis=1)


def searched(strategy: Strategy, count: int, seed: int = 0, batch: int = 1, space: SearchSpace = SPACE) -> Trials:
    """Trials of a search that scores cells by `one_max`; shorter than `count` if the strategy runs out of cells."""
    genotypes = np.zeros((0, 6), dtype=np.int8)
    while len(genotypes) < count:
        proposals = strategy.propose(trials_of(genotypes, space), batch, seed)
        if not proposals:
            break
        genotypes = np.concatenate([genotypes, *(proposal.genotype[None] for proposal in proposals)])
    return trials_of(genotypes, space)


def trials_of(genotypes: Genotypes, space: SearchSpace = SPACE, scores: np.ndarray | None = None) -> Trials:
    n = len(genotypes)
    scores = one_max(genotypes) if scores is None else scores
    return Trials(genotypes, space.keys(genotypes), scores, np.ones(n, dtype=bool), np.zeros(n, dtype=bool))


@pytest.mark.parametrize("strategy", [RandomSearch(SPACE), RegularisedEvolution(SPACE)])
def test_each_is_a_strategy(strategy: Strategy):
    assert isinstance(strategy, Strategy)


@pytest.mark.parametrize(
    "make", [RandomSearch, RegularisedEvolution, lambda space: RegularisedEvolution(space, repeats=True)]
)
def test_proposals_depend_on_trials_and_seed_alone(make):
    trials = trials_of(SPACE.sample(40, np.random.default_rng(0)))
    first, again = make(SPACE).propose(trials, 5, 7), make(SPACE).propose(trials, 5, 7)
    other = make(SPACE).propose(trials, 5, 8)
    assert [p.genotype.tolist() for p in first] == [p.genotype.tolist() for p in again]
    assert [p.genotype.tolist() for p in first] != [p.genotype.tolist() for p in other]


@pytest.mark.parametrize("batch", [1, 7])
def test_random_search_visits_each_cell_once_and_then_ends(batch: int):
    space = small_pool(100)
    trials = searched(RandomSearch(space), 1000, batch=batch, space=space)
    assert sorted(trials.keys.tolist()) == sorted(space.keys(space.enumerate()).tolist())


def test_random_search_draws_the_same_whatever_the_batch():
    one, five = (searched(RandomSearch(SPACE), 20, batch=batch).keys for batch in (1, 5))
    np.testing.assert_array_equal(one, five)


def test_random_search_never_repeats_in_a_space_that_it_cannot_enumerate():
    trials = searched(RandomSearch(Endless()), 200)
    assert len(np.unique(trials.keys)) == 200


@pytest.mark.parametrize("optima", [1, 4])
def test_random_search_takes_the_expected_number_of_draws_to_the_optimum(optima: int):
    n, runs = 60, 500
    space = small_pool(n)
    best = space.keys(space.enumerate()[:optima])
    nothing = trials_of(space.enumerate()[:0])
    draws = []
    for seed in range(runs):
        order = space.keys(np.stack([p.genotype for p in RandomSearch(space).propose(nothing, n, seed)]))
        draws.append(int(np.flatnonzero(np.isin(order, best))[0]) + 1)
    expected = (n + 1) / (optima + 1)
    error = np.std(draws, ddof=1) / np.sqrt(runs)
    assert abs(np.mean(draws) - expected) < 4 * error


@pytest.mark.parametrize("repeats", [False, True])
def test_regularised_evolution_climbs_one_max(repeats: bool):
    evolved, random = [], []
    for seed in range(5):
        strategy = RegularisedEvolution(SPACE, population=20, tournament=5, repeats=repeats)
        evolved.append(np.maximum.accumulate(searched(strategy, 150, seed).scores))
        random.append(np.maximum.accumulate(searched(RandomSearch(SPACE), 150, seed).scores))
    evolved, random = np.array(evolved), np.array(random)
    assert (evolved[:, -1] >= 5 / 6).all()
    assert evolved[:, -1].mean() > random[:, -1].mean()
    assert (evolved[:, -1] > evolved[:, 19]).all()


def test_regularised_evolution_starts_with_the_initial_design():
    strategy = RegularisedEvolution(SPACE, population=12)
    trials = searched(strategy, 12, batch=5)
    np.testing.assert_array_equal(trials.genotypes[:12], initial_design(SPACE, 12, 0))
    assert strategy.initial == 12


def test_regularised_evolution_mutates_the_best_of_the_living():
    genotypes = initial_design(SPACE, 40, 0)
    scores = np.zeros(40)
    scores[3], scores[35] = 1.0, 0.5  # the best has left the population of ten
    strategy = RegularisedEvolution(SPACE, population=10, tournament=10)
    children = [p.genotype for p in strategy.propose(trials_of(genotypes, scores=scores), 10, 0)]
    assert all((child != genotypes[35]).sum() == 1 for child in children)


def test_regularised_evolution_never_repeats_unless_told_to():
    trials = searched(RegularisedEvolution(SPACE, population=10, tournament=10), 200)
    assert len(np.unique(trials.keys)) == 200
    trials = searched(RegularisedEvolution(SPACE, population=10, tournament=10, repeats=True), 200)
    assert len(np.unique(trials.keys)) < 200


def test_children_of_the_literal_algorithm_differ_from_their_parents():
    genotypes = initial_design(SPACE, 10, 0)
    scores = np.arange(10) / 10
    strategy = RegularisedEvolution(SPACE, population=10, tournament=10, repeats=True)
    children = strategy.propose(trials_of(genotypes, scores=scores), 500, 0)
    assert len(children) == 500
    assert all((child.genotype != genotypes[-1]).sum() == 1 for child in children)


def test_regularised_evolution_leaves_an_exhausted_neighbourhood():
    parent = SPACE.enumerate()[777]
    trials = trials_of(np.concatenate([SPACE.neighbours(parent), parent[None]]), scores=np.arange(25) / 25)
    proposals = RegularisedEvolution(SPACE, population=2, tournament=2).propose(trials, 3, 0)
    keys = SPACE.keys(np.stack([p.genotype for p in proposals]))
    assert len(np.unique(keys)) == 3
    assert not np.isin(keys, trials.keys).any()


def test_regularised_evolution_ends_when_the_space_is_used_up():
    space = small_pool(50)
    trials = searched(RegularisedEvolution(space, population=10, tournament=3), 1000, batch=3, space=space)
    assert sorted(trials.keys.tolist()) == sorted(space.keys(space.enumerate()).tolist())


def test_regularised_evolution_goes_on_where_every_trial_failed():
    genotypes = initial_design(SPACE, 10, 0)
    trials = trials_of(genotypes, scores=np.full(10, np.nan))
    for repeats in (False, True):
        proposals = RegularisedEvolution(SPACE, population=10, repeats=repeats).propose(trials, 2, 0)
        assert len(proposals) == 2
