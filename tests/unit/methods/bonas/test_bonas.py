from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.methods.base import Proposal, Stage, StagedStrategy, Strategy, carry_out, initial_design, learnt_prefix
from bonas_core.methods.bonas import regression
from bonas_core.methods.bonas.acquisition import log_expected_improvement
from bonas_core.methods.bonas.predictors.gcn import GCN
from bonas_core.methods.bonas.regression import LinearRegression
from bonas_core.methods.bonas.schedule import Schedule
from bonas_core.methods.bonas.strategy import Bonas, Embedded
from bonas_core.methods.bonas.surrogate import FittedPredictor, Learner
from bonas_core.methods.bonas.targets import transform
from bonas_core.methods.random_search import RandomSearch
from bonas_core.methods.samplers import EvolutionSampler, ExhaustiveSampler, LearningSampler, RandomSampler, Sampler
from bonas_core.methods.samplers.base import Pool
from bonas_core.methods.samplers.reinforce import ReinforceSampler
from bonas_core.methods.samplers.state import SamplerState
from bonas_core.registry import names
from bonas_core.search import run
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import Genotypes, Keys, SearchSpace
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.pool import PoolSpace
from bonas_core.testing import ToyEvaluator, toy_problem
from bonas_core.trials import Trials

SPACE = NASBench201()
QUICK = GCN(layers=2, width=8, epochs=8, learning_rate=1e-2, initialisation="he")


def strategy(space: SearchSpace = SPACE, sampler: Sampler | LearningSampler | None = None, **options) -> Bonas:
    options = {"pool": 60, "initial": 6, "retrain_every": 4, **options}
    if "intercept" in options:
        options["regression"] = LinearRegression(options.pop("intercept"))

    def taken(part: type) -> dict:
        return {field.name: options.pop(field.name) for field in fields(part) if field.name in options}

    schedule, learner = Schedule(**taken(Schedule)), Learner(space, QUICK, **taken(Learner))
    return Bonas(learner, sampler or RandomSampler(), schedule=schedule, **options)


def worth(genotypes: Genotypes) -> np.ndarray:
    return (genotypes == 3).mean(axis=1) * 0.8 + (genotypes[:, 5] == 2) * 0.1


def trials_of(genotypes: Genotypes, scores: np.ndarray | None = None) -> Trials:
    n = len(genotypes)
    scores = worth(genotypes) if scores is None else scores
    return Trials(genotypes, SPACE.keys(genotypes), scores.copy(), np.ones(n, dtype=bool), np.zeros(n, dtype=bool))


def some_trials(count: int) -> Trials:
    return trials_of(initial_design(SPACE, count, 0))


def in_flight(trials: Trials, rows: list[int]) -> Trials:
    scores, finished = trials.scores.copy(), trials.finished.copy()
    scores[rows], finished[rows] = np.nan, False
    return replace(trials, scores=scores, finished=finished)


def step_of(bonas: Bonas, trials: Trials) -> tuple[Pool, FittedPredictor, Embedded]:
    pool, fitted = bonas.sample_pool(trials, 0), bonas.fit_predictor(trials, 0)
    return pool, fitted, bonas.embed(trials, pool, fitted, 0)


def stages_of(bonas: Bonas, trials: Trials, folder: Path | None = None) -> list[str]:
    """Titles of the stages of a proposal, which are carried out."""
    titles = []

    def run(stage: Stage) -> object:
        titles.append(str(stage))
        return stage.run()

    carry_out(bonas.stages(trials, 1, 0, folder), run)
    return titles


def figures(proposals: list[Proposal]) -> list[tuple]:
    return [
        (*p.genotype.tolist(), p.sampler, p.acquisition, p.predicted_mean, p.predicted_std, p.predictor_version)
        for p in proposals
    ]


def test_it_is_a_strategy():
    assert isinstance(strategy(), Strategy)


@pytest.mark.parametrize(
    "sampler",
    [RandomSampler(), EvolutionSampler(), ExhaustiveSampler(), ReinforceSampler(units=6, samples=40)],
    ids=lambda s: s.name,
)
def test_proposals_depend_on_trials_and_seed_alone(sampler: Sampler):
    space = PoolSpace(SPACE, SPACE.enumerate()[::50])
    trials = trials_of(initial_design(space, 13, 0))
    fresh = figures(strategy(space, sampler).propose(trials, 2, 3))
    used = strategy(space, sampler)
    used.propose(trials_of(initial_design(space, 30, 0)), 2, 3)
    used.propose(trials, 1, 4)
    assert figures(used.propose(trials, 2, 3)) == fresh
    assert figures(used.propose(trials, 2, 4)) != fresh


def test_proposals_do_not_depend_on_the_threads_of_numpy():
    trials = in_flight(some_trials(40), [38, 39])
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(figures(strategy(pool=2000).propose(trials, 4, 0)))
    assert found[0] == found[1]


def test_proposing_leaves_the_trials_alone():
    trials = in_flight(some_trials(13), [12])
    before = [column.copy() for column in trials.columns()]
    strategy().propose(trials, 3, 0)
    for column, old in zip(trials.columns(), before, strict=True):
        np.testing.assert_array_equal(column, old)


@pytest.mark.parametrize("count", [1, 10, 100])
def test_an_initial_design_is_a_prefix_of_longer_ones(count: int):
    longer = initial_design(SPACE, 300, 5)
    np.testing.assert_array_equal(initial_design(SPACE, count, 5), longer[:count])
    assert len(np.unique(SPACE.keys(longer))) == 300
    assert (initial_design(SPACE, count, 6) != longer[:count]).any()


class Coarse(NASBench201):
    """Tells cells apart by their first two operations alone, so that a stream of cells soon repeats."""

    size = 25

    def keys(self, genotypes: Genotypes) -> Keys:
        return super().keys(genotypes) // np.uint64(5**4)


def test_an_initial_design_is_a_prefix_of_longer_ones_where_the_stream_repeats():
    space = Coarse()
    longest = initial_design(space, 25, 5)
    assert len(np.unique(space.keys(longest))) == 25
    for count in range(1, 25):
        np.testing.assert_array_equal(initial_design(space, count, 5), longest[:count])


def test_an_initial_design_has_no_more_cells_than_the_space():
    space = PoolSpace(SPACE, SPACE.enumerate()[:7])
    assert len(initial_design(space, 10, 0)) == 7


def test_the_search_starts_with_the_initial_design_however_it_is_asked_for():
    design = initial_design(SPACE, 6, 0)
    at_once = [p.genotype for p in strategy().propose(some_trials(0), 6, 0)]
    np.testing.assert_array_equal(at_once, design)
    for n in range(6):
        proposal = strategy().propose(trials_of(design[:n]), 1, 0)[0]
        np.testing.assert_array_equal(proposal.genotype, design[n])
        assert (proposal.sampler, proposal.acquisition, proposal.predictor_version) == ("initial", None, None)


def test_random_trials_go_on_until_two_have_a_score():
    design = initial_design(SPACE, 12, 0)
    scores = np.full(6, np.nan)
    assert strategy().propose(trials_of(design[:6], scores), 1, 0)[0].sampler == "initial"
    np.testing.assert_array_equal(strategy().propose(trials_of(design[:6], scores), 1, 0)[0].genotype, design[6])
    scores[[1, 4]] = 0.3, 0.4
    assert strategy().propose(trials_of(design[:6], scores), 1, 0)[0].sampler == "random"


def test_the_predictor_is_retrained_every_few_trials_and_not_in_between():
    bonas = strategy(initial=6, retrain_every=4)
    everything = some_trials(20)
    versions = {n: bonas.fit_predictor(everything.first(n), 0).version for n in range(6, 20)}
    assert [bonas.schedule.training_size(everything.first(n)) for n in range(6, 20)] == [6] * 4 + [10] * 4 + [
        14
    ] * 4 + [18] * 2
    groups = [{versions[n] for n in range(begin, min(begin + 4, 20))} for begin in (6, 10, 14, 18)]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == 4


@given(
    finished=st.integers(5, 3000),
    every=st.integers(1, 40),
    growth=st.sampled_from([0.0, 0.01, 0.05, 0.5, 1.0]),
)
def test_a_predictor_learns_again_when_there_is_enough_that_is_new(finished: int, every: int, growth: float):
    def seen_at(count: int) -> int:
        rows = np.zeros(3000, dtype=bool)
        rows[:count] = True
        nothing = np.zeros(3000)
        return learnt_prefix(Trials(nothing[:, None], nothing, nothing, rows, rows), 5, every, growth)

    seen = seen_at(finished)
    assert seen <= finished
    assert finished - seen < max(every, int(growth * seen))
    assert seen_at(seen) == seen  # it was retrained just there, whatever came later
    if seen > 5:
        before = seen_at(seen - 1)
        assert seen - before == max(every, int(growth * before))


def test_predictors_of_long_searches_are_retrained_less_often():
    bonas = strategy(initial=6, retrain_every=4, retrain_growth=0.5)
    sizes = [bonas.schedule.training_size(some_trials(40).first(n)) for n in range(6, 41)]
    assert sorted(set(sizes)) == [6, 10, 15, 22, 33]
    assert sizes == sorted(sizes)


def test_a_version_stands_for_settings_seed_and_the_trials_seen():
    trials = some_trials(12)
    version = strategy(digest="a").predictor_version(trials, 0)
    assert strategy(digest="a").predictor_version(trials, 0) == version
    assert strategy(digest="b").predictor_version(trials, 0) != version
    assert strategy(digest="a").predictor_version(trials, 1) != version
    for row, same in ((3, False), (11, True)):  # ten were seen by the predictor
        scores = trials.scores.copy()
        scores[row] += 0.01
        assert (strategy(digest="a").predictor_version(replace(trials, scores=scores), 0) == version) is same


def test_fitting_again_gives_the_same_weights():
    trials = some_trials(12)
    a, b = strategy().fit_predictor(trials, 0), strategy().fit_predictor(trials, 0)
    for name, tensor in a.weights.tensors.items():
        np.testing.assert_array_equal(tensor, b.weights.tensors[name])
    assert a.trained_on == 10


def test_a_predictor_that_is_remembered_is_not_trained_again(monkeypatch):
    trials = some_trials(12)
    fitted = strategy().fit_predictor(trials, 0)
    later = strategy()
    later.remember(fitted)
    monkeypatch.setattr(Learner, "fit_predictor", lambda *_: pytest.fail("it was trained again"))
    assert later.has(fitted.version)
    assert later.fit_predictor(trials, 0) is fitted
    proposals = figures(later.propose(trials, 1, 0))
    monkeypatch.undo()
    assert proposals == figures(strategy().propose(trials, 1, 0))


def test_the_candidate_of_largest_expected_improvement_is_picked():
    trials = some_trials(12)
    bonas = strategy()
    pool = bonas.sample_pool(trials, 0)
    fitted = bonas.fit_predictor(trials, 0)
    embedded = bonas.embed(trials, pool, fitted, 0)
    targets = transform(trials.scores, "standardise").values
    posterior = regression.fit(embedded.trials, targets, "constant").posterior(embedded.candidates)
    values = log_expected_improvement(posterior, targets.max())
    proposal = bonas.propose(trials, 1, 0)[0]
    assert proposal.acquisition == pytest.approx(values.max(), abs=1e-3)
    assert np.ptp(values) > 0.1
    assert proposal.genotype.tolist() == pool.genotypes[values.argmax()].tolist()
    assert proposal.incumbent == pytest.approx(trials.scores.max())
    assert proposal.predictor_version == fitted.version
    assert proposal.sampler == "random"


def test_closed_rows_of_a_pool_are_never_picked():
    space = PoolSpace(SPACE, SPACE.enumerate()[::400])
    trials = trials_of(space.enumerate()[:30])
    proposals = strategy(space, ExhaustiveSampler()).propose(trials, 5, 0)
    assert len(proposals) == 5
    assert not np.isin(SPACE.keys(np.stack([p.genotype for p in proposals])), trials.keys).any()


def test_ties_are_broken_at_random():
    trials = some_trials(12)
    # values of equal rows would differ in their last digits on some processors
    bonas = strategy(acquisition=lambda posterior, best, rng: np.zeros(len(posterior.mean)))
    _, fitted, embedded = step_of(bonas, trials)
    picks = {bonas.select(trials, embedded, fitted, 1, seed)[0].genotype.tobytes() for seed in range(20)}
    assert len(picks) > 10


@pytest.mark.parametrize("sampler", [RandomSampler(), EvolutionSampler()], ids=lambda s: s.name)
def test_picks_of_a_batch_are_distinct_and_new(sampler: Sampler):
    trials = some_trials(12)
    proposals = strategy(sampler=sampler).propose(trials, 15, 0)
    keys = SPACE.keys(np.stack([p.genotype for p in proposals]))
    assert len(np.unique(keys)) == 15
    assert not np.isin(keys, trials.keys).any()


def test_the_first_pick_of_a_batch_is_the_pick_of_a_batch_of_one():
    trials = some_trials(12)
    assert figures(strategy().propose(trials, 5, 0))[0] == figures(strategy().propose(trials, 1, 0))[0]


def test_a_trial_in_flight_counts_as_one_picked_before():
    trials = some_trials(12)
    bonas = strategy()
    pool, fitted, embedded = step_of(bonas, trials)
    first, second = bonas.select(trials, embedded, fitted, 2, 0)
    row = (pool.genotypes == first.genotype).all(axis=1)
    beside = Embedded(
        replace(pool, open=pool.open & ~row),
        np.concatenate([embedded.trials, embedded.candidates[row][:1]]),
        embedded.candidates,
    )
    picked = bonas.select(in_flight(some_trials(13), [12]), beside, fitted, 1, 0)[0]
    assert picked.genotype.tolist() == second.genotype.tolist()
    assert picked.acquisition == pytest.approx(second.acquisition, rel=1e-6)
    assert picked.acquisition < first.acquisition


def test_a_pick_believes_that_the_picks_before_it_turn_out_as_predicted():
    trials = some_trials(12)
    bonas = strategy()
    pool, fitted, embedded = step_of(bonas, trials)
    first, second = bonas.select(trials, embedded, fitted, 2, 0)
    surrogate = bonas.fit_surrogate(trials, embedded.trials)
    row = int(np.flatnonzero((pool.genotypes == first.genotype).all(axis=1))[0])
    features = np.concatenate([embedded.trials, embedded.candidates[[row]]])
    mean = surrogate.regression.posterior(embedded.candidates[[row]]).mean
    values = np.append(surrogate.targets.values, mean)
    believed = regression.fit(features, values, "constant", regression.MIN_NOISE).posterior(
        embedded.candidates, precision=np.float32
    )
    is_open = pool.open & (np.arange(len(pool.open)) != row)
    value = np.where(is_open, log_expected_improvement(believed, values.max()), -np.inf)
    assert second.genotype.tolist() == pool.genotypes[value.argmax()].tolist()
    assert second.acquisition == pytest.approx(value.max(), rel=1e-6)


def test_a_search_out_of_patience_tries_something_at_random_now_and_then():
    cells = initial_design(SPACE, 40, 0)
    scores = np.linspace(0.5, 0.4, 40)  # nothing after the first is better
    patient, hurried = strategy(patience=40), strategy(patience=10)

    def explored(bonas: Bonas) -> list[int]:
        proposed = {n: bonas.propose(trials_of(cells[:n], scores[:n]), 1, 0)[0] for n in range(8, 25)}
        return [n for n, proposal in proposed.items() if proposal.acquisition is None]

    assert explored(patient) == []
    assert explored(hurried) == [12, 16, 20, 24]
    better = np.append(scores[:20], 0.6)  # an improvement brings patience back
    assert hurried.propose(trials_of(cells[:21], better), 4, 0)[3].acquisition is not None
    batch = hurried.propose(trials_of(cells[:21], scores[:21]), 8, 0)
    assert [place for place, proposal in enumerate(batch) if proposal.acquisition is None] == [3, 7]
    keys = SPACE.keys(np.stack([proposal.genotype for proposal in batch]))
    assert len(np.unique(keys)) == 8
    assert not np.isin(keys, SPACE.keys(cells[:21])).any()


def test_a_shortlist_depends_on_nothing_but_what_the_predictor_saw():
    bonas, other = (strategy(SPACE, ExhaustiveSampler(), shortlist=40) for _ in range(2))
    trials = some_trials(17)
    bonas.propose(trials.first(11), 1, 0)  # makes the shortlist earlier in the search
    assert figures(bonas.propose(trials, 1, 0)) == figures(other.propose(trials, 1, 0))
    pool, fitted = other.sample_pool(trials, 0), other.fit_predictor(trials, 0)
    assert len(other.embed(trials, pool, fitted, 0).pool.genotypes) == 40


def test_the_posterior_incumbent_is_no_lucky_draw():
    trials = some_trials(20)
    scores = trials.scores.copy()
    scores[3] = scores.max() + 5 * np.ptp(scores)
    lucky = replace(trials, scores=scores)
    noisy = strategy(incumbent="posterior")
    features = np.ones((20, 4)) + np.random.default_rng(0).normal(size=(20, 4))
    assert noisy.fit_surrogate(lucky, features).best < strategy().fit_surrogate(lucky, features).best


def test_trials_in_flight_are_not_proposed_again():
    trials = in_flight(some_trials(13), [9, 11, 12])
    proposals = strategy(sampler=EvolutionSampler()).propose(trials, 10, 0)
    assert not np.isin(SPACE.keys(np.stack([p.genotype for p in proposals])), trials.keys).any()


def test_failed_trials_are_never_proposed_again():
    space = PoolSpace(SPACE, SPACE.enumerate()[::1000])  # 16 cells
    trials = trials_of(space.enumerate()[:10])
    scores = trials.scores.copy()
    scores[[2, 7]] = np.nan
    for sampler in (RandomSampler(), EvolutionSampler(), ExhaustiveSampler()):
        proposals = strategy(space, sampler).propose(replace(trials, scores=scores), 20, 0)
        expected = sorted(space.keys(space.enumerate()[10:]).tolist())
        assert sorted(space.keys(np.stack([p.genotype for p in proposals])).tolist()) == expected


def test_a_diverged_trial_is_learnt_as_the_worst():
    trials = some_trials(12)
    scores, diverged = trials.scores.copy(), trials.diverged.copy()
    scores[8], diverged[8] = np.nan, True
    worst = trials.scores.copy()
    worst[8] = np.nanmin(scores)
    a = strategy().propose(replace(trials, scores=scores, diverged=diverged), 1, 0)
    b = strategy().propose(replace(trials, scores=worst), 1, 0)
    assert figures(a)[0][:-1] == figures(b)[0][:-1]


@pytest.mark.parametrize("sampler", [RandomSampler(), EvolutionSampler(), ExhaustiveSampler()], ids=lambda s: s.name)
def test_a_space_that_is_used_up_ends_the_search(sampler: Sampler):
    space = PoolSpace(SPACE, SPACE.enumerate()[::1000])
    assert strategy(space, sampler).propose(trials_of(space.enumerate()), 3, 0) == []


@pytest.mark.parametrize("targets", ["rank", "standardise", "logit"])
@pytest.mark.parametrize("intercept", ["centre", "constant"])
def test_predictions_are_scores_with_positive_deviations(targets: str, intercept: str):
    trials = some_trials(40)
    proposal = strategy(targets=targets, intercept=intercept).propose(trials, 1, 0)[0]
    assert -0.5 < proposal.predicted_mean < 1.5
    assert 0 < proposal.predicted_std < 1


def test_scores_that_are_no_fractions_weigh_by_their_own_range():
    scores = -100 + 50 * some_trials(12).scores  # as negated perplexities
    trials = trials_of(some_trials(12).genotypes, scores)
    versions = {}
    for fractions in (True, False):
        versions[fractions] = strategy(loss="linear", fractions=fractions).fit_predictor(trials, 0).weights
    assert versions[True].losses[-1] == 0  # every weight is zero: nothing is learnt
    assert versions[False].losses[-1] > 0


def test_equal_scores_do_no_harm():
    trials = trials_of(some_trials(12).genotypes, np.full(12, 0.1))
    for targets in ("rank", "standardise", "logit"):
        proposal = strategy(targets=targets).propose(trials, 1, 0)[0]
        assert np.isfinite(proposal.acquisition)
        assert proposal.predicted_mean == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize("recipe", ["best", "paper"])
def test_both_recipes_beat_random_search_in_few_trials(recipe: str):
    found, random = [], []
    for seed in range(3):
        method = {"recipe": recipe, "sampler": "evolution", "pool": 200}
        found.append(run(toy_problem(30, seed, method=method)).best.objective)
        random.append(run(toy_problem(30, seed, method={"name": "random"})).best.objective)
    assert np.mean(found) > np.mean(random) + 0.05
    assert min(found) > np.mean(random)


class Closed(ToyEvaluator):
    """Knows 423 cells, of which one is the best, and measures them without noise."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(PoolSpace(space, space.enumerate()[::37]))

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        return Outcome(super().evaluate(architecture, context).metrics["test"])


@pytest.mark.parametrize("recipe", ["best", "paper"])
def test_both_recipes_find_the_optimum_in_a_quarter_of_the_trials_of_random_search(recipe: str):
    evaluator = {"kind": "test_bonas:Closed"}
    problem = toy_problem(evaluator=evaluator)
    cells = [problem.space.architecture(genotype) for genotype in problem.space.enumerate()]
    values = [problem.evaluator.evaluate(cell, EvaluationContext(0)).objective for cell in cells]
    assert values.count(max(values)) == 1
    by_chance = (len(values) + 1) / 2  # trials that random search takes on average
    needed = []
    for seed in range(3):
        log = run(
            toy_problem(423, seed, method={"recipe": recipe}, evaluator=evaluator, budget={"stop_at": max(values)})
        )
        assert log.rows[-1].objective == max(values)
        needed.append(len(log.rows))
    assert np.mean(needed) < by_chance / 4


def test_random_search_is_what_it_is_compared_with():
    assert isinstance(toy_problem(method={"name": "random"}).strategy, RandomSearch)


TINY = ReinforceSampler(units=6, samples=40)


def state_of(bonas: Bonas, trials: Trials, seed: int = 0) -> SamplerState:
    return bonas.update_sampler(trials, seed)


def equal_states(a: SamplerState, b: SamplerState) -> bool:
    return (a.version, a.seen) == (b.version, b.seen) and all(
        np.array_equal(a.learnt[name], array) for name, array in b.learnt.items()
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_a_sampler_learns_the_same_round_by_round_and_all_at_once(batch: int):
    trials = some_trials(13)
    steadily = strategy(sampler=TINY, batch=batch)
    for count in range(6, 14, batch):
        steadily.propose(trials.first(count), 1, 0)
    at_once = strategy(sampler=TINY, batch=batch)
    assert equal_states(state_of(steadily, trials), state_of(at_once, trials))
    assert figures(steadily.propose(trials, 2, 0)) == figures(at_once.propose(trials, 2, 0))
    # back at an earlier point, and with another seed
    assert figures(steadily.propose(trials.first(8), 2, 0)) == figures(
        strategy(sampler=TINY, batch=batch).propose(trials.first(8), 2, 0)
    )
    assert figures(steadily.propose(trials, 2, 1)) == figures(strategy(sampler=TINY, batch=batch).propose(trials, 2, 1))


@pytest.mark.parametrize(("batch", "seen"), [(1, [6, 7, 8, 9, 10, 11, 12]), (3, [6, 6, 6, 9, 9, 9, 12])])
def test_a_sampler_is_updated_once_a_batch(batch: int, seen: list[int]):
    bonas = strategy(sampler=TINY, batch=batch)
    assert [state_of(bonas, some_trials(20).first(count)).seen for count in range(6, 13)] == seen


def test_a_state_that_is_remembered_is_not_learnt_again(monkeypatch):
    trials = some_trials(12)
    before = state_of(strategy(sampler=TINY), trials.first(11))
    expected = figures(strategy(sampler=TINY).propose(trials, 1, 0))
    updates, update = [], ReinforceSampler.update
    monkeypatch.setattr(ReinforceSampler, "update", lambda *args: updates.append(1) or update(*args))
    later = strategy(sampler=TINY)
    assert not later.has_sampler_state(trials, 0)
    later.remember_sampler(before)
    assert later.has_sampler_state(trials, 0)
    assert figures(later.propose(trials, 1, 0)) == expected
    assert len(updates) == 1
    later.propose(trials, 1, 0)
    assert len(updates) == 1


def test_a_state_of_another_course_is_never_used():
    trials = some_trials(12)
    state = state_of(strategy(sampler=TINY, sampler_digest="a"), trials)
    bonas = strategy(sampler=TINY, sampler_digest="a")
    assert bonas.is_sampler_state(state, trials, 0)
    assert bonas.is_sampler_state(state, some_trials(15), 0)  # of an earlier step
    assert not bonas.is_sampler_state(state, trials.first(11), 0)
    assert not bonas.is_sampler_state(state, trials, 1)
    assert not strategy(sampler=TINY, sampler_digest="b").is_sampler_state(state, trials, 0)
    scores = trials.scores.copy()
    scores[11] += 0.01
    assert not bonas.is_sampler_state(state, replace(trials, scores=scores), 0)
    assert not bonas.is_sampler_state(state, in_flight(trials, [11]), 0)
    bonas.remember_sampler(state)
    assert figures(bonas.propose(trials, 1, 1)) == figures(strategy(sampler=TINY).propose(trials, 1, 1))


def test_learning_again_leaves_the_predictor_at_hand_where_it_is():
    trials = some_trials(12)
    bonas = strategy(sampler=TINY)
    fitted = bonas.fit_predictor(trials, 0)
    state_of(bonas, trials)
    assert bonas.fit_predictor(trials, 0) is fitted


def test_a_sampler_learns_nothing_before_there_is_anything_to_learn_from():
    design = initial_design(SPACE, 9, 0)
    scores = np.full(9, np.nan)
    scores[[7, 8]] = 0.3, 0.4
    bonas = strategy(sampler=TINY, retrain_every=1)
    state = state_of(bonas, trials_of(design, scores))
    assert state.seen == 9
    assert state.learnt["steps"] == 2  # forty architectures in minibatches of twenty: one update


def test_samplers_that_learn_nothing_have_no_state():
    assert "update sampler" not in stages_of(strategy(), some_trials(12))
    assert "update sampler" in stages_of(strategy(sampler=TINY), some_trials(12))


def test_what_was_embedded_before_changes_no_proposal(monkeypatch: pytest.MonkeyPatch):
    """Blocks of trials are embedded once; a process that starts later must make the same proposals."""
    monkeypatch.setattr("bonas_core.methods.bonas.strategy._KEPT", 8)
    counted: list[int] = []
    embed = GCN.embed
    monkeypatch.setattr(
        GCN, "embed", lambda self, weights, graphs: (counted.append(len(graphs)), embed(self, weights, graphs))[1]
    )
    grown = strategy(retrain_every=40)
    for count in range(20, 30):
        trials = some_trials(count)
        proposed = figures(grown.propose(trials, 1, 0))
        assert figures(strategy(retrain_every=40).propose(trials, 1, 0)) == proposed
    counted.clear()
    grown.propose(some_trials(30), 1, 0)
    assert sum(counted) - 60 == 30 % 8
    grown.propose(some_trials(20), 1, 0)  # fewer trials than it knows
    assert figures(grown.propose(some_trials(20), 1, 0)) == figures(
        strategy(retrain_every=40).propose(some_trials(20), 1, 0)
    )


def test_a_proposal_comes_about_in_stages():
    bonas = strategy(initial=6, retrain_every=4)
    assert isinstance(bonas, StagedStrategy)
    assert stages_of(bonas, some_trials(3)) == ["propose"]
    choosing = ["sample pool", "embed", "score EI"]
    assert stages_of(bonas, some_trials(7)) == ["retrain predictor on 6 trials", *choosing]
    assert stages_of(bonas, some_trials(8)) == choosing
    assert stages_of(bonas, some_trials(10)) == ["retrain predictor on 10 trials", *choosing]


def test_stages_that_an_orchestrator_carries_out_give_the_same_proposals():
    trials = some_trials(12)
    seen: list[str] = []

    def run(stage: Stage) -> object:
        seen.append(stage.name)
        return stage.run()

    proposals = carry_out(strategy().stages(trials, 3, 5), run)
    assert figures(proposals) == figures(strategy().propose(trials, 3, 5))
    assert seen == ["retrain predictor", "sample pool", "embed", "score EI"]


def test_what_is_learnt_is_kept_in_a_folder_and_taken_up_from_it(tmp_path: Path, monkeypatch):
    def made() -> Bonas:
        controller = {"units": 6, "samples": 40}
        return toy_problem(20, method={"sampler": "reinforce", "controller": controller}).strategy

    trials = some_trials(14)
    first = figures(carry_out(made().stages(trials, 1, 0, tmp_path)))
    assert [len(list(tmp_path.glob(kept))) for kept in ("predictors/*/*", "samplers/*")] == [1, 1]
    again = made()
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "fit_predictor", lambda *_: pytest.fail("a predictor was trained again"))
        patched.setattr(Bonas, "_updated", lambda *_: pytest.fail("a sampler learnt again"))
        assert figures(carry_out(again.stages(trials, 1, 0, tmp_path))) == first


@pytest.mark.parametrize("name", names("acquisition"))
@pytest.mark.parametrize("regression_name", names("regression"))
def test_every_acquisition_function_and_regression_can_be_exchanged(name: str, regression_name: str):
    trials = some_trials(20)
    strategies = [
        toy_problem(30, method={"acquisition": name, "regression": regression_name}).strategy for _ in range(2)
    ]
    both = [figures(one.propose(trials, 2, 0)) for one in strategies]
    assert both[0] == both[1]
    assert len({row[:6] for row in both[0]}) == 2
    assert all(np.isfinite(row[-4]) for row in both[0])


def test_an_acquisition_function_of_ones_own_decides():
    def wants_certainty(posterior, best, rng):
        return -posterior.variance

    trials = some_trials(20)
    own = strategy(acquisition=wants_certainty)
    pool, _, embedded = step_of(own, trials)
    surrogate = own.fit_surrogate(trials, embedded.trials)
    variance = surrogate.regression.posterior(embedded.candidates, precision=np.float32).variance
    proposal = own.propose(trials, 1, 0)[0]
    np.testing.assert_array_equal(proposal.genotype, pool.genotypes[variance.argmin()])
