"""From settings to the objects of a search."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import isfunction
from typing import Any

from pydantic import ValidationError

from bonas_core.errors import SettingsError, first_line
from bonas_core.evaluators.base import Evaluator
from bonas_core.evaluators.function import FunctionEvaluator
from bonas_core.methods.base import Strategy
from bonas_core.registry import resolve
from bonas_core.settings import CustomEvaluatorSettings, MethodSettings, Settings, TrainingSettings
from bonas_core.settings.method import OwnMethodSettings
from bonas_core.spaces.base import SearchSpace
from bonas_core.trials import Objective


@dataclass(frozen=True)
class Problem:
    """Everything that a search is about, built from its settings."""

    settings: Settings
    evaluator: Evaluator
    strategy: Strategy
    objective: Objective

    @property
    def space(self) -> SearchSpace:
        """The part of the space that can be evaluated."""
        return self.evaluator.space


def build(settings: Settings, evaluator: Evaluator | None = None) -> Problem:
    """Builds space, evaluator and strategy.

    Args:
        settings: of the search.
        evaluator: an evaluator built from the same settings before, to share what it has read.

    Raises:
        SettingsError: a name cannot be resolved, settings contradict each other, or no images are held out.
        TableError: the evaluator's table cannot be used.
    """
    if isinstance(settings.evaluator, TrainingSettings) and settings.evaluator.validation_images == 0:
        raise SettingsError(
            "evaluator.validation_images: 0 leaves a search nothing to score cells by but the test images; hold some "
            "out, or train a given cell with `bonas train`"
        )
    evaluator = evaluator or build_evaluator(settings, build_space(settings.space))
    objective = Objective(evaluator.objective, evaluator.unit, evaluator.direction)
    return Problem(settings, evaluator, build_strategy(settings, evaluator.space, objective), objective)


def build_space(name: str) -> SearchSpace:
    """Makes a space by its registered name or `module:object`.

    Raises:
        SettingsError: there is none, or it is not a space.
    """
    try:
        space = resolve("space", name)()
    except TypeError as error:
        raise SettingsError(f"space `{name}`: {error}; name a class that is made without arguments") from None
    if not isinstance(space, SearchSpace):
        raise SettingsError(
            f"space `{name}` is a {type(space).__name__}, not a search space; see bonas_core/spaces/base.py"
        )
    return space


def build_evaluator(settings: Settings, space: SearchSpace) -> Evaluator:
    """Builds the evaluator of a space; a plain function is one.

    Raises:
        SettingsError: it cannot be made with the settings that are given.
    """
    options = settings.evaluator.model_dump()
    kind = options.pop("kind")
    found = resolve("evaluator", kind)
    if isfunction(found):
        return FunctionEvaluator(space, found, **options)
    try:
        evaluator: Evaluator = found(space, **options)
    except TypeError as error:
        if not isinstance(settings.evaluator, CustomEvaluatorSettings):
            raise
        raise SettingsError(f"evaluator `{kind}`: {error}; check the settings under `evaluator`") from None
    return evaluator


def build_strategy(settings: Settings, space: SearchSpace, objective: Objective) -> Strategy:
    """Builds the strategy of a search.

    A method of one's own that has no `from_settings` is called with the space and its options.

    Raises:
        SettingsError: it cannot be made with the settings that are given, or proposes nothing.
    """
    own = settings.method
    method = resolve("method", own.name)
    if not isinstance(own, OwnMethodSettings):
        strategy: Strategy = method.from_settings(own, space, objective, settings.predictor)
        return strategy
    try:
        if hasattr(method, "from_settings"):
            strategy = method.from_settings(_declared(method, own), space, objective, settings.predictor)
        else:
            strategy = method(space, **own.options)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, ("method.options", *fault["loc"])))
        raise SettingsError(f"{place}: {first_line(ValueError(fault['msg']))}; `{own.name}` declares it so") from None
    except TypeError as error:
        raise SettingsError(f"method `{own.name}`: {error}; check `method.options`") from None
    if not isinstance(strategy, Strategy):
        raise SettingsError(
            f"method `{own.name}` makes a {type(strategy).__name__}, which has no `initial` and `propose`; "
            "see bonas_core/methods/base.py"
        )
    return strategy


def _declared(method: Any, own: OwnMethodSettings) -> MethodSettings:
    """The settings that a method of one's own declares, out of its options."""
    declared: type[MethodSettings] = method.Settings
    tree: dict[str, Any] = {"batch": own.batch, **own.options}
    if declared.model_fields["name"].annotation is str:
        tree["name"] = own.name
    return declared.model_validate(tree)
