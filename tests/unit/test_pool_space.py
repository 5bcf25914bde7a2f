import numpy as np
import pytest

from bonas_core.spaces.base import SearchSpace, distinct
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.pool import PoolSpace

WHOLE = NASBench201()


@pytest.fixture
def members() -> np.ndarray:
    """40 cells in no order."""
    return WHOLE.enumerate()[np.random.default_rng(0).permutation(WHOLE.size)[:40]]


def test_a_pool_is_a_search_space(members: np.ndarray):
    pool = PoolSpace(WHOLE, members)
    assert isinstance(pool, SearchSpace)
    assert (pool.name, pool.vocabulary, pool.positional) == (WHOLE.name, WHOLE.vocabulary, WHOLE.positional)
    assert pool.encoding_version == WHOLE.encoding_version


def test_enumeration_gives_the_members_in_their_order(members: np.ndarray):
    pool = PoolSpace(WHOLE, members)
    assert pool.size == 40
    np.testing.assert_array_equal(pool.enumerate(), members)


def test_samples_are_members_and_every_member_is_sampled(members: np.ndarray):
    pool = PoolSpace(WHOLE, members)
    drawn = pool.sample(1000, np.random.default_rng(1))
    assert set(pool.keys(drawn).tolist()) == set(pool.keys(members).tolist())


def test_mutants_are_members_and_mutations_of_their_parents():
    pool = PoolSpace(WHOLE, WHOLE.enumerate()[WHOLE.enumerate()[:, 0] == 1])
    parents = pool.sample(500, np.random.default_rng(0))
    children = pool.mutate(parents, np.random.default_rng(1))
    assert (children[:, 0] == 1).all()
    changes = (children != parents).sum(axis=1)
    assert (changes <= 1).all()
    assert changes.any()


def test_a_member_without_neighbours_comes_back_unchanged():
    lonely = WHOLE.parse(["|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"])
    pool = PoolSpace(WHOLE, lonely)
    np.testing.assert_array_equal(
        pool.mutate(np.repeat(lonely, 9, axis=0), np.random.default_rng(0)), lonely.repeat(9, 0)
    )
    assert len(pool.neighbours(lonely[0])) == 0


def test_mutants_are_members_even_where_the_redraws_run_out(monkeypatch):
    monkeypatch.setattr("bonas_core.spaces.pool._REDRAWS", 1)
    pool = PoolSpace(WHOLE, WHOLE.enumerate()[::100])
    children = pool.mutate(pool.enumerate(), np.random.default_rng(0))
    assert np.isin(pool.keys(children), pool.keys(pool.enumerate())).all()


def test_neighbours_are_those_of_the_space_that_are_members():
    cell = WHOLE.enumerate()[1234]
    around = WHOLE.neighbours(cell)
    pool = PoolSpace(WHOLE, np.concatenate([around[::3], cell[None], WHOLE.enumerate()[:1]]))
    np.testing.assert_array_equal(pool.neighbours(cell), around[::3])


def test_mutation_reaches_every_neighbour():
    cell = WHOLE.enumerate()[1234]
    pool = PoolSpace(WHOLE, np.concatenate([cell[None], WHOLE.neighbours(cell)[:6]]))
    children = pool.mutate(np.repeat(cell[None], 500, axis=0), np.random.default_rng(0))
    assert len(distinct(pool.keys(children), pool.keys(cell[None]))) == 6


def test_text_keys_and_graphs_are_those_of_the_space(members: np.ndarray):
    pool = PoolSpace(WHOLE, members)
    texts = pool.format(members)
    assert texts == WHOLE.format(members)
    np.testing.assert_array_equal(pool.parse(texts), members)
    np.testing.assert_array_equal(pool.keys(members), WHOLE.keys(members))
    np.testing.assert_array_equal(pool.encode(members).labels, WHOLE.encode(members).labels)
    assert pool.architecture(members[0]) == WHOLE.architecture(members[0])
