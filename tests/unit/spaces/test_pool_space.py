import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonas_core.errors import SettingsError
from bonas_core.spaces.base import ControlledSpace, SearchSpace, distinct
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


def test_mutants_are_members_even_where_few_mutations_are_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bonas_core.spaces.pool._MUTATIONS", 1)
    pool = PoolSpace(WHOLE, WHOLE.enumerate()[::100])
    children = pool.mutate(pool.enumerate(), np.random.default_rng(0))
    assert np.isin(pool.keys(children), pool.keys(pool.enumerate())).all()


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_parent_with_kin_gets_one_of_them_whatever_was_mutated_before(seed: int):
    members = WHOLE.enumerate()[::50]
    rng = np.random.default_rng(seed)
    used, fresh = PoolSpace(WHOLE, members), PoolSpace(WHOLE, members)
    used.mutate(used.sample(20, rng), rng)
    parents = used.sample(60, rng)
    children = used.mutate(parents, np.random.default_rng(seed))
    np.testing.assert_array_equal(children, fresh.mutate(parents, np.random.default_rng(seed)))
    for parent, child in zip(parents, children, strict=True):
        kin = used.keys(used.kin(parent)).tolist()
        assert used.keys(child[None]).item() in (kin or used.keys(parent[None]).tolist())


def test_a_pool_has_the_rules_of_its_space(members: np.ndarray):
    pool = PoolSpace(WHOLE, members)
    assert pool.mutations == ("redraw",)
    np.testing.assert_array_equal(pool.with_mutation("redraw").enumerate(), members)


def test_a_pool_of_a_space_without_rules_has_none(members: np.ndarray):
    class Plain:
        name, encoding_version, vocabulary, positional, keys = "plain", 1, (), True, WHOLE.keys

    pool = PoolSpace(Plain(), members)  # type: ignore[arg-type]
    assert pool.mutations == ()
    with pytest.raises(SettingsError, match="space `plain` has no mutations to choose from; leave"):
        pool.with_mutation("redraw")


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


def test_only_what_spells_a_member_is_valid(members: np.ndarray):
    pool = PoolSpace(WHOLE, members)
    assert isinstance(pool, ControlledSpace)
    assert pool.decisions() == WHOLE.decisions()
    choices = WHOLE.to_decisions(WHOLE.enumerate())
    genotypes, valid = pool.from_decisions(choices)
    assert sorted(pool.keys(genotypes[valid]).tolist()) == sorted(pool.keys(members).tolist())
    np.testing.assert_array_equal(pool.to_decisions(members), WHOLE.to_decisions(members))


def test_a_pool_of_a_space_without_decisions_has_none(members: np.ndarray):
    class Undecided(NASBench201):
        decisions = from_decisions = to_decisions = None  # type: ignore[assignment]

    pool = PoolSpace(Undecided(), members)
    assert pool.decisions() == ()
    with pytest.raises(SettingsError, match="space `nasbench201` has no decisions"):
        pool.to_decisions(members)
    with pytest.raises(SettingsError, match="space `nasbench201` has no decisions"):
        pool.from_decisions(members)
