import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonas_core.methods.samplers import EvolutionSampler, ExhaustiveSampler, RandomSampler, Sampler
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.methods.samplers.evolution import tournament_winners
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.pool import PoolSpace
from bonas_core.trials import Trials

SPACE = NASBench201()
SAMPLERS = [RandomSampler(), EvolutionSampler(), EvolutionSampler(random_fraction=0.3), EvolutionSampler(5, 2, 1.0)]
NAMES = ["random", "evolution", "evolution with random share", "evolution all random"]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=NAMES)


class Endless(NASBench201):
    """The same cells, without saying how many there are."""

    size = None  # type: ignore[assignment]


def trials_of(genotypes: Genotypes, scores: np.ndarray | None = None, space: SearchSpace = SPACE) -> Trials:
    n = len(genotypes)
    scores = np.linspace(0, 1, n) if scores is None else np.asarray(scores, dtype=np.float64)
    return Trials(genotypes, space.keys(genotypes), scores, np.ones(n, dtype=bool), np.zeros(n, dtype=bool))


def some_trials(count: int = 20, seed: int = 0) -> Trials:
    return trials_of(fresh_random(SPACE, np.array([], dtype=np.uint64), count, np.random.default_rng(seed)))


def small_pool(count: int = 60) -> PoolSpace:
    return PoolSpace(SPACE, SPACE.enumerate()[np.random.default_rng(5).permutation(SPACE.size)[:count]])


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("sampler", [*SAMPLERS, ExhaustiveSampler()])
def test_each_is_a_sampler(sampler: Sampler):
    assert isinstance(sampler, Sampler)


@each_sampler
@pytest.mark.parametrize("space", [SPACE, Endless(), small_pool()], ids=["whole", "endless", "pool"])
def test_candidates_are_distinct_and_unseen(sampler: Sampler, space: SearchSpace):
    trials = trials_of(space.sample(20, rng(0)))
    pool = sampler.pool(space, trials, 200, rng())
    keys = space.keys(pool.genotypes)
    assert len(np.unique(keys)) == len(keys) > 0
    assert not np.isin(keys, trials.keys).any()
    assert pool.open.all()
    assert not pool.whole_space


@each_sampler
@pytest.mark.parametrize("size", [1, 7, 100])
def test_pools_are_never_larger_than_asked_for(sampler: Sampler, size: int):
    assert 1 <= len(sampler.pool(SPACE, some_trials(), size, rng()).genotypes) <= size


@pytest.mark.parametrize("sampler", [RandomSampler(), EvolutionSampler(5, 2, 1.0)], ids=["random", "all random"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_random_pools_have_the_size_asked_for(sampler: Sampler, size: int):
    assert len(sampler.pool(SPACE, some_trials(), size, rng()).genotypes) == size


@each_sampler
def test_equal_generators_draw_equal_pools(sampler: Sampler):
    a, b, other = (sampler.pool(SPACE, some_trials(), 50, rng(seed)).genotypes.tolist() for seed in (1, 1, 2))
    assert a == b
    assert a != other


@each_sampler
def test_a_space_that_is_used_up_gives_an_empty_pool(sampler: Sampler):
    space = small_pool()
    assert len(sampler.pool(space, trials_of(space.enumerate()), 50, rng()).genotypes) == 0


@each_sampler
def test_the_last_unseen_cell_is_found(sampler: Sampler):
    space = small_pool()
    pool = sampler.pool(space, trials_of(space.enumerate()[:-1]), 50, rng())
    np.testing.assert_array_equal(pool.genotypes, space.enumerate()[-1:])


@each_sampler
def test_without_trials_candidates_are_random(sampler: Sampler):
    pool = sampler.pool(SPACE, some_trials(0), 50, rng())
    assert len(pool.genotypes) == 50


@pytest.mark.parametrize("size", [5, 10])  # the larger is drawn from a list of what is left
def test_random_candidates_cover_a_small_space_evenly(size: int):
    space = small_pool(20)
    none = some_trials(0)
    counts = np.zeros(SPACE.size)
    for seed in range(400):
        counts[SPACE.keys(RandomSampler().pool(space, none, size, rng(seed)).genotypes).astype(int)] += 1
    drawn = counts[space.keys(space.enumerate()).astype(int)]
    expected = 400 * size / 20
    assert drawn.sum() == 400 * size
    assert drawn.min() > expected - 5 * np.sqrt(expected)
    assert drawn.max() < expected + 5 * np.sqrt(expected)


def test_the_winner_is_the_best_where_the_tournament_is_the_whole_population():
    trials = some_trials(12)
    best = trials.genotypes[-1]
    winners = tournament_winners(trials, population=12, tournament=12, count=30, rng=rng())
    assert (winners == best).all()


def test_a_tournament_larger_than_the_population_takes_all_of_it():
    winners = tournament_winners(some_trials(3), population=30, tournament=10, count=5, rng=rng())
    assert (winners == some_trials(3).genotypes[-1]).all()


def test_a_tournament_of_one_is_a_uniform_draw():
    trials = some_trials(4)
    winners = tournament_winners(trials, 4, 1, 4000, rng())
    counts = [(winners == genotype).all(axis=1).sum() for genotype in trials.genotypes]
    assert sum(counts) == 4000
    assert max(abs(count - 1000) for count in counts) < 5 * np.sqrt(1000)


def test_entrants_are_drawn_without_replacement():
    # of two, the worse can win a tournament of two only by entering it twice
    winners = tournament_winners(some_trials(2), 2, 2, 200, rng())
    assert (winners == some_trials(2).genotypes[1]).all()


def test_the_oldest_leave_the_population_however_good():
    genotypes = some_trials(10).genotypes
    trials = trials_of(genotypes, np.linspace(1, 0, 10))
    winners = tournament_winners(trials, population=4, tournament=4, count=10, rng=rng())
    assert (winners == genotypes[6]).all()


def test_trials_without_a_score_are_no_parents():
    genotypes = some_trials(5).genotypes
    trials = trials_of(genotypes, np.array([0.1, 0.2, 0.3, np.nan, np.nan]))
    winners = tournament_winners(trials, population=3, tournament=3, count=10, rng=rng())
    assert (winners == genotypes[2]).all()


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 12))
def test_a_winner_is_never_below_the_worst_that_can_win(seed: int, population: int, tournament: int):
    trials = some_trials(12)
    winners = tournament_winners(trials, population, tournament, 20, rng(seed))
    entrants = min(tournament, population)
    places = [int(np.flatnonzero((trials.genotypes == winner).all(axis=1))[0]) for winner in winners]
    assert min(places) >= 12 - population + entrants - 1


def test_candidates_of_evolution_are_neighbours_of_parents():
    trials = some_trials(30)
    pool = EvolutionSampler(population=30, tournament=30).pool(SPACE, trials, 10, rng())
    around = SPACE.keys(SPACE.neighbours(trials.genotypes[-1]))
    assert np.isin(SPACE.keys(pool.genotypes), around).all()


def test_the_random_share_is_not_made_of_mutants():
    trials = some_trials(30)
    around = np.unique(np.concatenate([SPACE.keys(SPACE.neighbours(g)) for g in trials.genotypes]))
    pool = EvolutionSampler(random_fraction=0.5).pool(SPACE, trials, 200, rng())
    near = np.isin(SPACE.keys(pool.genotypes), around)
    assert near[:-100].all()
    assert len(near) > 150
    # about 700 of 15,625 cells are neighbours
    assert near[-100:].sum() < 20


def test_an_exhausted_neighbourhood_falls_back_to_random():
    parent = SPACE.enumerate()[777]
    trials = trials_of(np.concatenate([SPACE.neighbours(parent), parent[None]]))
    pool = EvolutionSampler(population=1, tournament=1).pool(SPACE, trials, 40, rng())
    assert len(pool.genotypes) == 40
    assert not np.isin(SPACE.keys(pool.genotypes), trials.keys).any()


def test_the_exhaustive_sampler_offers_every_cell_and_closes_the_seen_ones():
    space = small_pool()
    trials = trials_of(space.enumerate()[[3, 8, 59]])
    pool = ExhaustiveSampler().pool(space, trials, 5, rng())
    np.testing.assert_array_equal(pool.genotypes, space.enumerate())
    assert np.flatnonzero(~pool.open).tolist() == [3, 8, 59]
    assert pool.whole_space


def test_the_exhaustive_sampler_has_nothing_open_in_a_space_that_is_used_up():
    space = small_pool()
    assert not ExhaustiveSampler().pool(space, trials_of(space.enumerate()), 5, rng()).open.any()


@pytest.mark.parametrize("left", [0, 1, 10, 59])
def test_fresh_random_gives_what_is_left_and_no_more(left: int):
    space = small_pool()
    seen = space.keys(space.enumerate()[: 60 - left])
    found = fresh_random(space, seen, 25, rng())
    assert len(found) == min(left, 25)
    assert not np.isin(space.keys(found), seen).any()
