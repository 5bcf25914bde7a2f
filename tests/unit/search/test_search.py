import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from bonas_core.errors import SearchError, StoreError
from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.methods.base import Proposal
from bonas_core.networks.nasbench201 import NASBench201Network
from bonas_core.problem import build
from bonas_core.search import SearchLog, Step, StopRule, evaluate, failed, next_step, run
from bonas_core.settings import parse_settings
from bonas_core.spaces.architecture import Architecture
from bonas_core.testing import ToyEvaluator, timeless, toy_problem
from bonas_core.trials import Trial, TrialState
from bonas_core.trials.history import TrialHistory

PREDICTOR = {"layers": 2, "width": 8, "epochs": 4}
CONTROLLER = {"units": 8, "samples": 40, "minibatch": 10}
STRATEGIES = {
    "random": {"method": {"name": "random"}},
    "evolution": {"method": {"name": "regularised-evolution", "population": 4, "tournament": 2}},
    "evolution with repeats": {
        "method": {"name": "regularised-evolution", "population": 4, "tournament": 2, "repeats": True}
    },
    "bonas": {"method": {"initial": 4, "retrain_every": 3, "sampler": "evolution", "pool": 50}, "predictor": PREDICTOR},
    "bonas in batches": {
        "method": {"initial": 4, "retrain_every": 3, "sampler": "random", "pool": 50, "batch": 3},
        "predictor": PREDICTOR,
    },
    "bonas with a controller": {
        "method": {"initial": 3, "retrain_every": 2, "sampler": "reinforce", "pool": 50, "controller": CONTROLLER},
        "predictor": PREDICTOR,
    },
    "bonas with a controller in batches": {
        "method": {
            "initial": 4,
            "retrain_every": 3,
            "sampler": "reinforce",
            "pool": 50,
            "batch": 2,
            "controller": CONTROLLER,
        },
        "predictor": PREDICTOR,
    },
    "bonas by the paper": {
        "method": {"recipe": "paper", "initial": 4, "retrain_every": 3, "pool": 50},
        "predictor": PREDICTOR,
    },
}
MISHAPS = {"evaluator": {"kind": "test_search:Troubled"}, "dispatch": {"retries": 1}}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Troubled(ToyEvaluator):
    """Fails for some cells, and returns what is no number for others."""

    def evaluate(self, architecture, context: EvaluationContext) -> Outcome:
        if context.seed % 5 == 0:
            raise SearchError("no such luck\nsecond line")
        outcome = super().evaluate(architecture, context)
        return Outcome(float("nan")) if context.seed % 5 == 1 else outcome


class Flaky(ToyEvaluator):
    """Fails on the first attempts at every trial, counted in `attempts`."""

    failures = 2
    attempts: list[int] = []  # noqa: RUF012

    def evaluate(self, architecture, context: EvaluationContext) -> Outcome:
        Flaky.attempts.append(context.seed)
        if Flaky.attempts.count(context.seed) <= Flaky.failures:
            raise OSError("the disk is away")
        return super().evaluate(architecture, context)


class Lossy(ToyEvaluator):
    """An objective to minimise."""

    objective = "toy loss"
    unit = "nats"
    direction = "minimise"

    def evaluate(self, architecture, context: EvaluationContext) -> Outcome:
        return Outcome(5 - 4 * super().evaluate(architecture, context).objective)


class Killed(BaseException):
    """Ends a search as a kill would: nothing catches it."""


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_resumed_from_anywhere_goes_on_as_if_it_had_never_stopped(name: str, tmp_path: Path):
    parts = {**STRATEGIES[name], **MISHAPS}
    whole = run(toy_problem(9, **parts), TrialHistory(tmp_path / "whole"))
    expected = timeless(whole.rows)
    assert {trial.state for trial in whole.rows} > {TrialState.DONE}
    problem = toy_problem(9, **parts)
    rounds = sorted({trial.round for trial in whole.rows})
    prefixes = 0
    for number in rounds:
        members = [trial for trial in whole.rows if trial.round == number]
        for done in range(len(members) + 1):
            # killed with this round proposed and the first `done` of its trials finished
            history = TrialHistory(tmp_path / f"{number}-{done}")
            for earlier in rounds[: number + 1]:
                history.propose([open_again(trial) for trial in whole.rows if trial.round == earlier])
            for trial in whole.rows:
                if trial.round < number or trial in members[:done]:
                    history.finish(trial)
            log = run(problem, history)
            assert timeless(log.rows) == expected
            assert timeless(history.trials()) == expected
            prefixes += 1
    assert prefixes == len(rounds) + len(whole.rows)


def open_again(trial: Trial) -> Trial:
    """A finished trial as it was when it was proposed."""
    proposal = {field.name: getattr(trial, field.name) for field in fields(Trial)}
    outcome = ("state", "objective", "metrics", "epochs", "params", "cost_s", "device", "attempt", "error")
    for name in (*outcome, "started_at", "finished_at"):
        proposal.pop(name)
    return Trial(**proposal)


def test_a_search_killed_while_evaluating_does_that_trial_again(tmp_path: Path):
    expected = timeless(run(toy_problem(8, **STRATEGIES["bonas"])).rows)
    history = TrialHistory(tmp_path)
    for dies_at in (0, 3, 5, 6):
        problem = toy_problem(8, **STRATEGIES["bonas"])
        left = dies_at - sum(trial.state.is_finished for trial in history.trials())
        evaluations, inner = iter(range(left)), problem.evaluator.evaluate

        def dying(architecture, context, evaluations=evaluations, inner=inner):
            if next(evaluations, None) is None:
                raise Killed
            return inner(architecture, context)

        problem.evaluator.evaluate = dying
        with pytest.raises(Killed):
            run(problem, history)
    assert [trial.state for trial in history.trials()][-1] is TrialState.PROPOSED
    run(toy_problem(8, **STRATEGIES["bonas"]), history)
    assert timeless(history.trials()) == expected


@pytest.mark.parametrize("name", ["evolution", "bonas in batches"])
@pytest.mark.parametrize("lost", ["*-000004*", "*00000[47]*", "round-*", "*00000[0345678]*", "compacted*"])
def test_what_is_lost_is_proposed_again_and_what_is_left_is_not_evaluated_again(
    lost: str, name: str, tmp_path: Path, monkeypatch
):
    history = TrialHistory(tmp_path)
    if lost == "compacted*":
        run(toy_problem(5, **STRATEGIES[name]), history)
        history.compact()
    whole = run(toy_problem(12, **STRATEGIES[name]), history).rows
    for part in tmp_path.glob(lost):
        part.unlink()
    left = {trial.seed for trial in history.trials() if trial.state.is_finished}
    evaluated, evaluate_toy = [], ToyEvaluator.evaluate
    monkeypatch.setattr(
        ToyEvaluator,
        "evaluate",
        lambda self, a, context: evaluated.append(context.seed) or evaluate_toy(self, a, context),
    )
    assert timeless(run(toy_problem(12, **STRATEGIES[name]), history).rows) == timeless(whole)
    assert timeless(history.trials()) == timeless(whole)
    assert sorted(evaluated) == sorted(trial.seed for trial in whole if trial.seed not in left)


def test_a_gap_in_an_asynchronous_history_is_refused(tmp_path: Path):
    history = TrialHistory(tmp_path)
    asynchronous = {"method": {"name": "random"}, "dispatch": {"mode": "asynchronous", "backend": "thread", "slots": 2}}
    run(toy_problem(9, **asynchronous), history)
    for part in tmp_path.glob("*000003*"):
        part.unlink()
    with pytest.raises(StoreError) as caught:
        run(toy_problem(9, **asynchronous), history)
    assert str(caught.value) == (
        f"history `{tmp_path}` holds trial 8 but not trial 3; "
        "put back the part that was moved away, or start another search"
    )


def test_a_recorded_trial_that_cannot_follow_what_is_lost_is_refused(tmp_path: Path):
    history, method = TrialHistory(tmp_path), {"name": "random", "batch": 2}
    run(toy_problem(8, method=method), history)
    fifth = history.trials()[4]
    for part in tmp_path.glob("*00000[45]*"):
        part.unlink()
    history.finish(fifth.with_changes(seed=5))
    with pytest.raises(StoreError, match=r"trial 4 is recorded as `.*`, but after what is lost it would be `.*`; put"):
        run(toy_problem(8, method=method), history)


def test_a_result_that_is_lost_is_found_again(tmp_path: Path):
    history = TrialHistory(tmp_path)
    expected = timeless(run(toy_problem(6, **STRATEGIES["bonas"]), history).rows)
    (tmp_path / "trial-000003.parquet").unlink()  # as the message about a damaged part advises
    assert timeless(run(toy_problem(6, **STRATEGIES["bonas"]), history).rows) == expected


def test_a_finished_search_is_left_as_it_is(tmp_path: Path):
    history = TrialHistory(tmp_path)
    before = run(toy_problem(5, method={"name": "random"}), history).rows
    seen = []
    log = run(toy_problem(5, method={"name": "random"}), history, on_trial=seen.append)
    assert log.rows == before
    assert seen == []


def test_a_larger_budget_goes_on_from_a_smaller_one(tmp_path: Path):
    history = TrialHistory(tmp_path)
    parts = STRATEGIES["bonas"]
    run(toy_problem(6, **parts), history)
    assert timeless(run(toy_problem(10, **parts), history).rows) == timeless(run(toy_problem(10, **parts)).rows)


def test_every_trial_is_told_as_it_ends():
    seen: list[Trial] = []
    log = run(toy_problem(7, method={"name": "random"}), on_trial=seen.append)
    assert seen == log.rows


def test_failures_are_recorded_and_never_stop_a_search():
    log = run(toy_problem(12, **STRATEGIES["bonas"], evaluator={"fail_every": 3}))
    failures = [trial for trial in log.rows if trial.state is TrialState.FAILED]
    assert len(log.rows) == 12
    assert [trial.trial for trial in failures] == [trial.trial for trial in log.rows if trial.seed % 3 == 0]
    assert failures
    for trial in failures:
        assert trial.error == "RuntimeError: this trial fails on purpose"
        assert (trial.objective, trial.attempt) == (None, 3)
        assert trial.finished_at is not None


def test_a_search_of_nothing_but_failures_ends_by_its_budget():
    for parts in STRATEGIES.values():
        log = run(toy_problem(9, **parts, evaluator={"fail_every": 1}, dispatch={"retries": 0}))
        assert [trial.state for trial in log.rows] == [TrialState.FAILED] * 9
        assert log.best is None


def test_divergences_are_recorded_once_and_never_tried_again():
    log = run(toy_problem(12, **STRATEGIES["bonas"], evaluator={"diverge_every": 3}))
    diverged = [trial for trial in log.rows if trial.state is TrialState.DIVERGED]
    assert [trial.trial for trial in diverged] == [trial.trial for trial in log.rows if trial.seed % 3 == 0]
    assert diverged
    for trial in diverged:
        assert (trial.error, trial.objective, trial.attempt) == ("this trial diverges on purpose", None, 1)


def test_an_objective_that_is_no_number_is_a_divergence():
    log = run(toy_problem(12, method={"name": "random"}, **MISHAPS))
    broken = [trial for trial in log.rows if trial.seed % 5 == 1]
    assert broken
    assert all((t.state, t.error) == (TrialState.DIVERGED, "the evaluator returned nan") for t in broken)


@pytest.mark.parametrize(("retries", "state", "attempts"), [(0, "FAILED", 1), (1, "FAILED", 2), (2, "DONE", 3), (5, "DONE", 3)])  # fmt: skip # noqa: E501
def test_an_error_is_retried_as_often_as_the_settings_say(retries: int, state: str, attempts: int):
    Flaky.attempts.clear()
    problem = toy_problem(
        2, method={"name": "random"}, evaluator={"kind": "test_search:Flaky"}, dispatch={"retries": retries}
    )
    log = run(problem)
    for trial in log.rows:
        assert (trial.state.value, trial.attempt) == (state, attempts)
        assert Flaky.attempts.count(trial.seed) == attempts
        assert trial.error == ("OSError: the disk is away" if state == "FAILED" else None)


def test_a_diverged_trial_counts_as_the_worst_score_seen():
    problem = toy_problem(9, method={"name": "random"})
    log = SearchLog(problem)
    log.propose(problem.strategy.propose(log.trials, 4, 0), 0.0)
    for trial, objective in zip(log.pending, (0.5, None, 0.2, 0.9), strict=True):
        state = TrialState.DIVERGED if objective is None else TrialState.DONE
        log.finish(trial.with_changes(state=state, objective=objective))
    rows, scores = log.trials.observed()
    assert rows.tolist() == [0, 1, 2, 3]
    assert scores.tolist() == [0.5, 0.2, 0.2, 0.9]


def test_a_search_of_nothing_but_divergences_ends_by_its_budget():
    for name, parts in STRATEGIES.items():
        log = run(toy_problem(7, **parts, evaluator={"diverge_every": 1}))
        assert [trial.state for trial in log.rows] == [TrialState.DIVERGED] * 7, name


def test_the_budget_of_trials_counts_the_initial_ones():
    for trials in (1, 3, 4, 6):
        problem = toy_problem(trials, **STRATEGIES["bonas in batches"])
        log = run(problem)
        assert len(log.rows) == trials
        assert StopRule(problem).reason(log) == f"the budget of {trials} trials is spent"


def test_the_target_ends_a_search():
    problem = toy_problem(200, method={"name": "random"}, budget={"stop_at": 0.6})
    log = run(problem)
    assert len(log.rows) < 200
    assert log.rows[-1].objective >= 0.6
    assert all(trial.objective < 0.6 for trial in log.rows[:-1])
    assert StopRule(problem).reason(log) == f"objective {log.rows[-1].objective:g} reached the target 0.6"


def test_a_target_to_minimise_is_reached_from_above():
    problem = toy_problem(
        200, method={"name": "random"}, budget={"stop_at": 3.0}, evaluator={"kind": "test_search:Lossy"}
    )
    log = run(problem)
    assert len(log.rows) < 200
    assert log.rows[-1].objective <= 3.0
    assert all(trial.objective > 3.0 for trial in log.rows[:-1])


def test_hours_are_those_of_evaluating_and_choosing():
    problem = toy_problem(200, method={"name": "random"}, budget={"hours": 1.0})
    log, rule = SearchLog(problem), StopRule(problem)
    log.propose(problem.strategy.propose(log.trials, 2, 0), surrogate_s=1000.0)
    for trial, cost in zip(log.pending, (2000.0, 599.0), strict=True):
        log.finish(trial.with_changes(state=TrialState.DONE, objective=0.5, cost_s=cost))
    assert rule.reason(log) is None
    log.propose(problem.strategy.propose(log.trials, 1, 0), surrogate_s=1.0)
    log.finish(log.pending[0].with_changes(state=TrialState.FAILED))
    assert rule.reason(log) == "the budget of 1 hours is spent"


def test_the_best_trial_is_the_smallest_where_the_objective_is_minimised():
    log = run(toy_problem(20, **STRATEGIES["bonas"], evaluator={"kind": "test_search:Lossy"}))
    assert log.best.objective == min(trial.objective for trial in log.rows)
    chosen = [trial for trial in log.rows if trial.sampler != "initial"]
    for trial in chosen:
        assert trial.incumbent == min(other.objective for other in log.rows[: trial.trial])
        assert 0 < trial.predicted_mean < 6
        assert trial.predicted_std > 0


def test_a_search_ends_where_the_strategy_has_nothing_to_offer(tmp_path: Path):
    problem = small_table(tmp_path, rows=12, trials=50)
    log = run(problem)
    assert len(log.rows) == len({trial.key for trial in log.rows}) == 12


def test_the_optimum_of_a_closed_table_ends_a_search(tmp_path: Path):
    problem = small_table(tmp_path, rows=40, trials=50, method={"name": "random"}, budget={"stop_at": "optimum"})
    log = run(problem)
    assert log.rows[-1].objective == max(problem.evaluator.objectives())
    assert all(trial.objective < log.rows[-1].objective for trial in log.rows[:-1])


def small_table(folder: Path, rows: int, trials: int, **parts):
    from bonas_core.spaces.nasbench201 import NASBench201

    space = NASBench201()
    texts = space.format(space.enumerate()[::50][:rows])
    lines = [f'"{text}",{50 + place % 37}.5' for place, text in enumerate(texts)]
    (folder / "table.csv").write_text("\n".join(["architecture,accuracy", *lines]))
    table = {"kind": "table", "table": str(folder / "table.csv"), "objective": "accuracy"}
    return toy_problem(trials, **{**({} if "method" in parts else STRATEGIES["bonas"]), "evaluator": table, **parts})


def test_pending_trials_come_before_new_ones():
    problem = toy_problem(6, **STRATEGIES["bonas in batches"])
    log, rule = SearchLog(problem), StopRule(problem)
    assert next_step(problem, log, rule) == Step(propose=4)
    log.propose(problem.strategy.propose(log.trials, 4, 0), 0.0)
    assert next_step(problem, log, rule) == Step(evaluate=log.rows)
    log.finish(evaluate(problem.evaluator, log.rows[2]))
    assert [trial.trial for trial in next_step(problem, log, rule).evaluate] == [0, 1, 3]
    for trial in log.pending:
        log.finish(evaluate(problem.evaluator, trial))
    assert next_step(problem, log, rule) == Step(propose=2)  # a batch would be three
    log.propose(problem.strategy.propose(log.trials, 2, 0), 0.0)
    for trial in log.pending:
        log.finish(evaluate(problem.evaluator, trial))
    assert next_step(problem, log, rule) == Step(stop="the budget of 6 trials is spent")


def test_rounds_count_from_the_initial_design():
    rows = run(toy_problem(11, **STRATEGIES["bonas in batches"])).rows
    assert [trial.round for trial in rows] == [0] * 4 + [1] * 3 + [2] * 3 + [3]
    assert [trial.trial for trial in rows] == list(range(11))


def test_an_initial_design_in_several_calls_is_one_round_and_loses_no_proposal(tmp_path: Path):
    problem, history = toy_problem(6, **STRATEGIES["bonas"]), TrialHistory(tmp_path)
    log = SearchLog(problem, history)
    log.propose(problem.strategy.propose(log.trials, 2, 0), 0.0)
    log.propose(problem.strategy.propose(log.trials, 2, 0), 0.0)
    assert [trial.round for trial in log.rows] == [0] * 4
    assert [trial.trial for trial in history.trials()] == [0, 1, 2, 3]


def test_a_log_grows_past_its_first_capacity(tmp_path: Path):
    problem = toy_problem(600, method={"name": "random"})
    log = run(problem)
    assert len(log.trials) == 600
    assert log.trials.scores.tolist() == [trial.objective for trial in log.rows]
    assert problem.space.format(log.trials.genotypes) == [trial.architecture for trial in log.rows]
    assert len(set(log.trials.keys.tolist())) == 600


def test_seconds_of_choosing_are_shared_by_a_round():
    problem = toy_problem(6, **STRATEGIES["bonas"])
    log = SearchLog(problem)
    fresh = log.propose([Proposal(g, "initial") for g in problem.space.enumerate()[:4]], surrogate_s=2.0)
    assert [trial.surrogate_s for trial in fresh] == [0.5] * 4


def test_seeds_of_trials_differ_and_follow_from_the_seed_of_the_search():
    a, again, b = (run(toy_problem(20, seed, method={"name": "random"})).rows for seed in (1, 1, 2))
    assert [t.seed for t in a] == [t.seed for t in again]
    assert len({t.seed for t in (*a, *b)}) == 40


def test_an_evaluation_keeps_what_the_evaluator_found():
    problem = toy_problem(1, method={"name": "random"})
    log = SearchLog(problem)
    trial = log.propose(problem.strategy.propose(log.trials, 1, 0), 0.0)[0]
    seen = []
    done = evaluate(problem.evaluator, trial, attempt=2, progress=lambda epoch, figures: seen.append((epoch, figures)))
    assert (done.state, done.attempt, done.device, done.epochs) == (TrialState.DONE, 2, "cpu", 1)
    assert set(done.metrics) == {"test"}
    assert seen == [(1, {"objective": done.metrics["test"]})]
    assert done.started_at <= done.finished_at
    assert done.key == trial.key


@pytest.mark.parametrize(
    ("error", "text"), [(ValueError("one\ntwo"), "ValueError: one"), (KeyboardInterrupt(), "KeyboardInterrupt")]
)
def test_an_error_is_recorded_as_one_line(error: BaseException, text: str):
    trial = failed(Trial(0, 0, "key", "cell"), error, attempts=3, cost_s=2.5)
    assert (trial.state, trial.error, trial.attempt, trial.cost_s) == (TrialState.FAILED, text, 3, 2.5)


def test_checkpoints_have_a_folder_for_every_trial(tmp_path: Path):
    run(toy_problem(3, method={"name": "random"}), checkpoints=tmp_path)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["0", "1", "2"]


class SometimesTooLarge(NASBench201Network):
    """A network of 512 TiB where the cell's first operation is a convolution."""

    def __init__(self, architecture: Architecture, **settings: Any) -> None:
        super().__init__(architecture, **settings)
        if architecture.operations[1].startswith("nor_conv"):
            self.weight = torch.nn.Parameter(torch.empty(2**47))


def test_networks_too_large_for_the_memory_fail_with_a_reason_and_the_search_goes_on():
    network = {"kind": f"{__name__}:SometimesTooLarge", "channels": 2}
    evaluator = {"kind": "training", "epochs": 1, "batch_size": 512, "network": network}
    method = {"name": "random"}
    tree = {"evaluator": evaluator, "method": method, "budget": {"trials": 6}, "dispatch": {"retries": 1}}
    trials = run(build(parse_settings(tree, "test"))).rows
    too_large = ["nor_conv" in trial.architecture.split("~")[0] for trial in trials]
    assert len(set(too_large)) == 2
    for trial, is_too_large in zip(trials, too_large, strict=True):
        assert trial.state is (TrialState.FAILED if is_too_large else TrialState.DONE)
        if is_too_large:
            assert trial.attempt == 2
            assert re.fullmatch(r"out of memory: RuntimeError: .*can't allocate memory.*", trial.error)
