import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonas_core.trials import TIME_COLUMNS, Objective, Trial, Trials, TrialState


def trials_of(scores: list[float], diverged: list[int] = [], running: list[int] = []) -> Trials:  # noqa: B006
    n = len(scores)
    return Trials(
        np.zeros((n, 6), dtype=np.int8),
        np.arange(n, dtype=np.uint64),
        np.array(scores, dtype=np.float64),
        ~np.isin(np.arange(n), running),
        np.isin(np.arange(n), diverged),
    )


NAN = float("nan")


def test_observations_are_the_scores_of_trials_that_have_one():
    rows, scores = trials_of([0.5, NAN, 0.2, NAN], running=[3]).observed()
    assert rows.tolist() == [0, 2]
    assert scores.tolist() == [0.5, 0.2]


def test_divergences_are_observed_as_the_worst_score():
    rows, scores = trials_of([0.5, NAN, 0.2, NAN, NAN], diverged=[1, 4]).observed()
    assert rows.tolist() == [0, 1, 2, 4]
    assert scores.tolist() == [0.5, 0.2, 0.2, 0.2]


def test_divergences_alone_are_observed_as_equals():
    rows, scores = trials_of([NAN, NAN, NAN], diverged=[0, 2]).observed()
    assert rows.tolist() == [0, 2]
    assert scores[0] == scores[1]


def test_observing_leaves_the_scores_alone():
    trials = trials_of([0.5, NAN], diverged=[1])
    trials.observed()
    assert np.isnan(trials.scores[1])


@given(st.integers(0, 12))
def test_the_first_trials_are_those_with_smaller_numbers(count: int):
    first = trials_of([0.1 * n for n in range(9)], diverged=[4]).first(count)
    assert first.keys.tolist() == list(range(min(count, 9)))
    assert {len(column) for column in first.columns()} == {min(count, 9)}
    assert first.diverged.sum() == (count > 4)


@pytest.mark.parametrize(
    ("unit", "direction", "objective", "score", "fraction"),
    [
        ("percent", "maximise", 91.5, 0.915, True),
        ("fraction", "maximise", 0.915, 0.915, True),
        ("nats", "maximise", 3.0, 3.0, False),
        ("nats", "minimise", 3.0, -3.0, False),
        ("percent", "minimise", 8.5, -0.085, False),
    ],
)
def test_scores_grow_with_quality_and_are_fractions_where_the_unit_says_so(
    unit: str, direction: str, objective: float, score: float, fraction: bool
):
    measure = Objective("x", unit, direction)
    assert measure.score(objective) == pytest.approx(score)
    assert measure.objective(score) == pytest.approx(objective)
    assert measure.is_fraction is fraction


@given(
    st.sampled_from(["percent", "fraction", "nats"]),
    st.sampled_from(["maximise", "minimise"]),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
)
def test_better_is_what_the_direction_says(unit: str, direction: str, a: float, b: float):
    measure = Objective("x", unit, direction)
    if abs(a - b) > 1e-6:
        assert measure.better(a, b) is (a > b if direction == "maximise" else a < b)
    assert not measure.better(a, a)
    assert measure.objective(measure.score(a)) == pytest.approx(a)


def test_states_that_end_a_trial_are_finished():
    assert {state for state in TrialState if state.is_finished} == {
        TrialState.DONE,
        TrialState.FAILED,
        TrialState.DIVERGED,
    }


def test_changes_make_another_trial():
    trial = Trial(3, 1, "key", "cell")
    changed = trial.with_changes(state=TrialState.DONE, objective=0.5)
    assert (trial.state, trial.objective) == (TrialState.PROPOSED, None)
    assert (changed.trial, changed.key, changed.state, changed.objective) == (3, "key", TrialState.DONE, 0.5)


def test_columns_of_time_are_columns():
    assert set(TIME_COLUMNS) < set(Trial.__dataclass_fields__)
