"""Plain functions as evaluators."""

import numpy as np
import pytest

from bonas_core.errors import SettingsError
from bonas_core.evaluators.base import EvaluationContext, Outcome, as_outcome
from bonas_core.evaluators.function import FunctionEvaluator
from bonas_core.search import run
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.testing import toy_problem
from bonas_core.trials import TrialState

SPACE = NASBench201()
CELL = SPACE.architecture(SPACE.enumerate()[7])


def plain(architecture) -> float:
    """Takes an architecture alone."""
    return architecture.operations.count("nor_conv_3x3") / 6


def seeded(architecture, context, *, scale=1.0):
    """Takes the context and an option as well."""
    return Outcome(scale * context.seed, metrics={"vertices": architecture.vertices})


def texts(architecture):
    """Returns what is no number."""
    return "good"


def test_a_function_is_called_with_what_it_asks_for():
    context = EvaluationContext(seed=3)
    assert FunctionEvaluator(SPACE, plain).evaluate(CELL, context) == Outcome(plain(CELL))
    found = FunctionEvaluator(SPACE, seeded, scale=2.0).evaluate(CELL, context)
    assert (found.objective, found.metrics) == (6.0, {"vertices": 8})


def test_its_fingerprint_changes_with_code_and_options():
    made = [FunctionEvaluator(SPACE, plain), FunctionEvaluator(SPACE, seeded)]
    made += [FunctionEvaluator(SPACE, seeded, scale=scale) for scale in (1.0, 2.0)]
    assert len({evaluator.fingerprint for evaluator in made}) == 4
    assert FunctionEvaluator(SPACE, plain).fingerprint == made[0].fingerprint


@pytest.mark.parametrize(("function", "options"), [(lambda: 1.0, {}), (plain, {"scale": 2}), (seeded, {"scael": 2})])
def test_a_function_that_cannot_be_called_so_is_refused(function, options: dict):
    with pytest.raises(SettingsError, match=r"cannot be called with an architecture.*; write it as `def "):
        FunctionEvaluator(SPACE, function, **options)


def test_settings_name_a_function_as_evaluator():
    own = {"kind": "test_function:seeded", "scale": 0.5, "unit": "count", "direction": "minimise"}
    problem = toy_problem(3, evaluator=own, method={"name": "random"})
    rows = run(problem).rows
    assert [trial.objective for trial in rows] == [trial.seed / 2 for trial in rows]
    assert (problem.objective.name, problem.objective.direction) == ("seeded", "minimise")


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.array(0.5)])
def test_any_number_is_an_objective(value):
    assert as_outcome(value) == Outcome(float(value))


@pytest.mark.parametrize("value", [None, "0.5", True, [0.5], {"objective": 1}])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match="return a number, the objective, or an Outcome"):
        as_outcome(value)


def test_a_function_that_returns_no_number_fails_its_trials():
    rows = run(toy_problem(2, evaluator={"kind": "test_function:texts"}, method={"name": "random"})).rows
    assert {trial.state for trial in rows} == {TrialState.FAILED}
    assert rows[0].error == "TypeError: the evaluator returned str; return a number, the objective, or an Outcome"
