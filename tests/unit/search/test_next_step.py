"""Synchronous and asynchronous modes: what the plain driver does with several trials at a time."""

from __future__ import annotations

from bonas_core.search import SearchLog, StopRule, evaluate, next_step, run
from bonas_core.testing import timeless, toy_problem

FEW = {"sampler": "random", "pool": 50}  # candidates: what is chosen does not matter here


def in_flight_over_time(mode: str, slots: int, trials: int = 30) -> list[int]:
    """Trials in flight whenever a trial ends."""
    problem = toy_problem(
        trials,
        method={"batch": slots, "initial": 6, **FEW},
        dispatch={"mode": mode, "slots": slots},
        predictor={"epochs": 3},
    )
    log, rule, counts = SearchLog(problem), StopRule(problem), []
    while not (step := next_step(problem, log, rule)).stop:
        for trial in step.evaluate:
            counts.append(len(log.pending))
            log.finish(evaluate(problem.evaluator, trial))
        if step.propose:
            log.propose(problem.strategy.propose(log.trials, step.propose, 0), 0.0)
    assert len(log.rows) == trials
    assert len({trial.key for trial in log.rows}) == trials
    return counts


def test_asynchronous_mode_keeps_every_slot_busy():
    assert in_flight_over_time("asynchronous", 4) == [6, 5, *[4] * 25, 3, 2, 1]


def test_synchronous_mode_ends_a_round_before_the_next_is_chosen():
    assert in_flight_over_time("synchronous", 4) == [*range(6, 0, -1), *[4, 3, 2, 1] * 6]


def test_one_slot_is_the_same_in_both_modes():
    one, other = (
        run(toy_problem(14, method={"initial": 6, **FEW}, dispatch={"mode": mode}, predictor={"epochs": 3}))
        for mode in ("synchronous", "asynchronous")
    )
    assert timeless(one.rows) == timeless(other.rows)


def test_asynchronous_searches_go_on_from_any_point():
    problem = toy_problem(
        16, method={"initial": 6, **FEW}, dispatch={"mode": "asynchronous", "slots": 3}, predictor={"epochs": 3}
    )
    whole = run(problem)
    for kept in (7, 10, 13):
        log = SearchLog(problem)
        log.propose(problem.strategy.propose(log.trials, 6, 0), 0.0)
        rule = StopRule(problem)
        while len(log.rows) < kept:  # another process, up to some point
            step = next_step(problem, log, rule)
            for trial in step.evaluate:
                log.finish(evaluate(problem.evaluator, trial))
            if step.propose:
                log.propose(problem.strategy.propose(log.trials, step.propose, 0), 0.0)
        assert timeless([t.with_changes(round=0) for t in log.rows if t.state.is_finished]) == timeless(
            [t.with_changes(round=0) for t in whole.rows[: sum(t.state.is_finished for t in log.rows)]]
        )
