from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bonas_core.errors import ModelError, SettingsError
from bonas_core.methods.samplers import LearningSampler, Sampler
from bonas_core.methods.samplers.base import Learnt
from bonas_core.methods.samplers.reinforce import ReinforceSampler, _Controller, _controller, _log_likelihood, _rewards
from bonas_core.methods.samplers.state import SamplerState, read_state
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.pool import PoolSpace
from bonas_core.testing import ToyEvaluator, toy_problem
from bonas_core.trials import Trials

SPACE = NASBench201()
CELLS = NASBench101("authors")
SMALL = ReinforceSampler(units=8, samples=60)
EAGER = ReinforceSampler(units=16, samples=200, learning_rate=0.01)


class Undecided(NASBench201):
    """A space of one's own, without decisions."""

    decisions = from_decisions = to_decisions = None


class Nothing(NASBench201):
    """Spells nothing but what it does not hold."""

    def from_decisions(self, choices: np.ndarray) -> tuple[Genotypes, np.ndarray]:
        return choices, np.zeros(len(choices), dtype=bool)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def trials_of(genotypes: Genotypes, space: SearchSpace = SPACE) -> Trials:
    n = len(genotypes)
    return Trials(genotypes, space.keys(genotypes), np.linspace(0, 1, n), np.ones(n, dtype=bool), np.zeros(n, bool))


def small_pool(count: int = 60) -> PoolSpace:
    return PoolSpace(SPACE, SPACE.enumerate()[rng(5).permutation(SPACE.size)[:count]])


def worth(genotypes: Genotypes) -> np.ndarray:
    """A logarithm of EI that wants convolutions, here and there."""
    return (genotypes == 3).sum(axis=1) * 2.0


NONE, NO_CELLS = trials_of(SPACE.enumerate()[:0]), trials_of(CELLS.enumerate()[:0], CELLS)


def same(a: Learnt, b: Learnt) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def test_it_is_a_sampler_that_learns():
    assert isinstance(SMALL, LearningSampler)
    assert not isinstance(SMALL, Sampler)


@pytest.mark.parametrize(
    "space", [SPACE, CELLS, small_pool(), PoolSpace(CELLS, CELLS.sample(99, rng()))],
    ids=["operations", "graphs", "few operations", "few graphs"],
)  # fmt: skip
def test_candidates_are_distinct_unseen_members_of_the_size_asked_for(space: SearchSpace):
    trials = trials_of(space.sample(5, rng(0)), space)
    learnt = SMALL.update(space, SMALL.start(space, rng(0)), trials, worth, rng(1))
    pool = SMALL.draw(space, learnt, trials, 50, rng())
    keys = space.keys(pool.genotypes)
    assert len(np.unique(keys)) == len(keys) == 50
    assert not np.isin(keys, trials.keys).any()
    assert space.parse(space.format(pool.genotypes)).tolist() == pool.genotypes.tolist()
    if isinstance(space, PoolSpace):
        assert np.isin(keys, space.keys(space.enumerate())).all()
    assert pool.open.all()
    assert not pool.whole_space


def test_an_exhausted_controller_does_not_end_a_search():
    space = small_pool()
    learnt = SMALL.start(space, rng(0))
    pool = SMALL.draw(space, learnt, trials_of(space.enumerate()[:-1]), 50, rng())
    np.testing.assert_array_equal(pool.genotypes, space.enumerate()[-1:])
    assert len(SMALL.draw(space, learnt, trials_of(space.enumerate()), 50, rng()).genotypes) == 0


def test_equal_arguments_give_equal_results_and_are_left_alone():
    first = SMALL.update(SPACE, SMALL.start(SPACE, rng(0)), NONE, worth, rng(1))
    before = {name: array.copy() for name, array in first.items()}
    a, b, other = (SMALL.update(SPACE, first, NONE, worth, rng(seed)) for seed in (2, 2, 3))
    assert same(a, b)
    assert not same(a, other)
    assert same(first, before)
    assert not same(a, first)
    pools = [SMALL.draw(SPACE, first, NONE, 50, rng(seed)).genotypes.tolist() for seed in (1, 1, 2)]
    assert pools[0] == pools[1] != pools[2]


def spelt(sampler: ReinforceSampler, space: SearchSpace, learnt: Learnt) -> np.ndarray:
    """A thousand rows of decisions."""
    return _controller(space, learnt, sampler.units).draw(1000, rng())


def test_it_learns_to_draw_what_is_worth_most():
    learnt = EAGER.start(SPACE, rng(0))
    means = []
    for step in range(11):
        if step % 5 == 0:
            means.append(worth(spelt(EAGER, SPACE, learnt)).mean())
        learnt = EAGER.update(SPACE, learnt, NONE, worth, rng(step))
    assert means[0] == pytest.approx(2 * 6 / 5, abs=0.4)  # as good as random
    assert means[0] + 2 < means[1] < means[2]


def test_a_controller_that_repeats_itself_learns_to_spell_something_else():
    learnt, trials = EAGER.start(SPACE, rng(0)), NONE
    for step in range(30):
        if step == 15:
            tired = spelt(EAGER, SPACE, learnt)
            assert len(np.unique(SPACE.keys(tired))) < 20
            trials = trials_of(np.unique(tired, axis=0))
        learnt = EAGER.update(SPACE, learnt, trials, worth, rng(step))
    after = SPACE.keys(spelt(EAGER, SPACE, learnt))
    assert np.isin(after, trials.keys).mean() < 0.5


def test_it_learns_to_spell_valid_cells():
    learnt = EAGER.start(CELLS, rng(0))
    shares = []
    for step in range(16):
        if step % 15 == 0:
            shares.append(CELLS.from_decisions(spelt(EAGER, CELLS, learnt))[1].mean())
        learnt = EAGER.update(CELLS, learnt, NO_CELLS, lambda cells: np.zeros(len(cells)), rng(step))
    assert shares[0] == pytest.approx(0.74, abs=0.06)
    assert shares[1] > 0.9


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**32))
@settings(max_examples=30)
def test_every_choice_is_one_of_those_of_its_decision(decisions: list[int], seed: int):
    controller = _Controller(tuple(decisions), 3)
    choices = controller.draw(50, rng(seed))
    assert choices.shape == (50, len(decisions))
    assert choices.min() >= 0
    assert (choices.max(axis=0) < decisions).all()


def test_what_is_drawn_has_the_probability_that_is_learnt_from():
    controller = _Controller((2, 3, 2), 6)
    draw = rng(3)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.copy_(torch.from_numpy(draw.normal(0, 1, tuple(parameter.shape))))
        everything = torch.tensor(list(product(range(2), range(3), range(2))))
        expected = _log_likelihood(controller(everything), everything).sum(dim=1).exp().numpy()
    assert expected.sum() == pytest.approx(1, abs=1e-5)
    assert expected.max() > 3 * expected.min()
    choices = controller.draw(20_000, draw)
    found = np.bincount(choices @ [6, 2, 1], minlength=12)
    np.testing.assert_allclose(found, 20_000 * expected, atol=5 * np.sqrt(20_000 * expected.max()))


def test_rewards_are_standardised_and_what_cannot_be_proposed_gets_the_worst():
    cells = CELLS.sample(30, rng())
    choices = np.vstack([CELLS.to_decisions(cells), np.zeros((10, 26), dtype=np.int8), CELLS.to_decisions(cells[:3])])
    known = trials_of(cells[25:], CELLS)
    seen: list[Genotypes] = []

    def acquire(genotypes: Genotypes) -> np.ndarray:
        seen.append(genotypes)
        return np.arange(len(genotypes)) * 0.1

    rewards = _rewards(CELLS, known, choices, acquire)
    assert len(np.unique(CELLS.keys(seen[0]))) == len(seen[0])  # each is scored once
    assert not np.isin(CELLS.keys(seen[0]), known.keys).any()
    open_rows = ~np.isin(CELLS.keys(cells), known.keys)
    fresh = np.r_[rewards[:30][open_rows], rewards[40:]]
    assert (fresh.mean(), fresh.std()) == (pytest.approx(0), pytest.approx(1))
    worst = min(-1, fresh.min())
    assert (rewards[30:40] == worst).all()
    assert (rewards[:30][~open_rows] == worst).all()
    np.testing.assert_array_equal(rewards[40:], rewards[:3])
    # the scale of EI does not matter
    np.testing.assert_allclose(_rewards(CELLS, known, choices, lambda some: acquire(some) - 900), rewards)


def test_equal_values_are_better_than_what_cannot_be_proposed_all_the_same():
    choices = np.vstack([SPACE.enumerate()[:5], SPACE.enumerate()[-5:]])
    rewards = _rewards(SPACE, trials_of(SPACE.enumerate()[:5]), choices, lambda some: np.full(len(some), -7.0))
    assert rewards.tolist() == [-1] * 5 + [0] * 5


def test_a_batch_without_anything_valid_teaches_nothing_and_breaks_nothing():
    learnt = SMALL.update(Nothing(), SMALL.start(Nothing(), rng(0)), NONE, worth, rng(1))
    assert all(np.isfinite(array).all() for array in learnt.values())
    assert len(SMALL.draw(Nothing(), learnt, trials_of(SPACE.enumerate()[:5]), 20, rng()).genotypes) == 20


@pytest.mark.parametrize(("advantage", "moved"), [(1.0, 0.3), (-1.0, -0.3)])
def test_a_probability_that_has_moved_far_enough_is_pushed_no_further(advantage: float, moved: float):
    sampler = ReinforceSampler(entropy=0.0)
    taken = torch.zeros((1, 1), dtype=torch.int64)
    for shift, pushed in ((moved, False), (-moved, True), (0.0, True)):
        now = torch.log(torch.tensor([[[0.4, 0.6]]])).requires_grad_()
        before = _log_likelihood(now, taken).detach() - shift
        sampler._loss(now, taken, before, torch.tensor([advantage])).backward()
        assert now.grad is not None
        assert (float(now.grad[0, 0, 0]) != 0) is pushed
        if pushed:
            assert np.sign(float(now.grad[0, 0, 0])) == -np.sign(advantage)


def test_the_entropy_bonus_favours_even_choices_and_ignores_closed_ones():
    sampler = ReinforceSampler(entropy=0.5)
    taken = torch.zeros((1, 1), dtype=torch.int64)
    for chances, entropy in (([0.5, 0.5, 0.0], np.log(2)), ([1.0, 0.0, 0.0], 0.0)):
        now = torch.log(torch.tensor([[chances]]))
        loss = sampler._loss(now, taken, _log_likelihood(now, taken), torch.zeros(1))
        assert float(loss) == pytest.approx(-0.5 * entropy)


def test_the_baseline_is_a_moving_average_of_rewards():
    learnt = SMALL.start(CELLS, rng(0))
    assert np.isnan(learnt["baseline"][0])
    learnt = SMALL.update(CELLS, learnt, NO_CELLS, lambda cells: cells[:, 0] * 1.0, rng(1))
    first = float(learnt["baseline"][0])
    assert first < -0.1  # a quarter is invalid
    assert float(learnt["steps"][0]) == 3
    everything = trials_of(CELLS.enumerate(), CELLS)
    learnt = SMALL.update(CELLS, learnt, everything, worth, rng(2))
    assert float(learnt["baseline"][0]) == pytest.approx(0.95 * first - 0.05)
    assert float(learnt["steps"][0]) == 6


def test_a_state_that_is_stored_goes_on_as_if_it_had_not_been(tmp_path: Path):
    learnt = SMALL.update(SPACE, SMALL.start(SPACE, rng(0)), NONE, worth, rng(1))
    state = SamplerState("0123", 17, learnt)
    state.write(tmp_path / "state.safetensors")
    found = read_state(tmp_path / "state.safetensors")
    assert (found.version, found.seen) == ("0123", 17)
    assert same(found.learnt, learnt)
    assert same(
        SMALL.update(SPACE, found.learnt, NONE, worth, rng(2)), SMALL.update(SPACE, learnt, NONE, worth, rng(2))
    )


def test_what_is_no_state_is_refused_in_one_line(tmp_path: Path):
    path = tmp_path / "state.safetensors"
    SamplerState("0123", 17, SMALL.start(SPACE, rng())).write(path)
    whole = path.read_bytes()
    for content in (whole[:100], b"", b"nonsense" * 99, whole.replace(b'\\"format\\": 1', b'\\"format\\": 7')):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"is not the state of a sampler \(.+\); remove it") as caught:
            read_state(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="is not the state of a sampler"):
        read_state(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("kind", ["Undecided", "Enclosed"])
def test_a_space_without_decisions_is_refused(kind: str):
    parts = {"space": "test_reinforce:Undecided"} if kind == "Undecided" else {}
    evaluator = {"kind": "test_reinforce:Enclosed"} if kind == "Enclosed" else {}
    with pytest.raises(SettingsError) as caught:
        toy_problem(method={"sampler": "reinforce"}, evaluator=evaluator, **parts)
    assert str(caught.value) == (
        "method.sampler: space `nasbench201` has no decisions for the reinforce sampler; use evolution or random"
    )


class Enclosed(ToyEvaluator):
    """Knows cells of a space without decisions."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(PoolSpace(Undecided(), SPACE.enumerate()[:50]))


def test_settings_of_the_controller_reach_the_sampler():
    controller = {
        "units": 7, "samples": 55, "minibatch": 5, "epochs": 2, "learning_rate": 0.5, "clip": 0.1, "entropy": 0.25,
    }  # fmt: skip
    problem = toy_problem(method={"sampler": "reinforce", "controller": controller})
    assert problem.strategy.sampler == ReinforceSampler(**controller)
    assert toy_problem(method={"sampler": "reinforce"}).strategy.sampler == ReinforceSampler()
