"""A plain function as an evaluator: `evaluator: {kind: mine:train}`, or `Search(space, train)`."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bonas_core.errors import SettingsError
from bonas_core.evaluators.base import EvaluationContext, Outcome, as_outcome
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import SearchSpace


class FunctionEvaluator:
    """Evaluates architectures by calling a function.

    Args:
        space: the space of the architectures.
        function: called with an `Architecture`, and with the `EvaluationContext` too where it has a second parameter
            that is called `context`; returns a number or an `Outcome`.
        name: the objective in full; by default the function's own name.
        unit: `percent`, `fraction`, or any other name of a unit, which is then not scaled.
        direction: `maximise` or `minimise`.
        options: handed to the function by name.

    Raises:
        SettingsError: the function cannot be called like that.
    """

    def __init__(
        self,
        space: SearchSpace,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        unit: str = "fraction",
        direction: str = "maximise",
        **options: Any,
    ) -> None:
        called = getattr(function, "__qualname__", type(function).__name__)
        parameters = inspect.signature(function).parameters
        self._context = {"context": None} if "context" in parameters else {}
        try:
            inspect.signature(function).bind(None, **self._context, **options)
        except TypeError as error:
            raise SettingsError(
                f"objective `{called}` cannot be called with an architecture"
                f"{''.join(f', {option}' for option in options)} ({error}); write it as `def {called}(architecture)`"
            ) from None
        if direction not in ("maximise", "minimise"):
            raise SettingsError(f"objective `{called}`: direction `{direction}` is none; use maximise or minimise")
        self.space = space
        self.objective = name or called
        self.unit = unit
        self.direction = direction
        self.fingerprint = f"{called}-{_digest(function, options)}"
        self._function = function
        self._options = options

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        """Calls the function."""
        own = {"context": context} if self._context else {}
        return as_outcome(self._function(architecture, **own, **self._options))


def _digest(function: Callable[..., Any], options: dict[str, Any]) -> str:
    """Changes with the source of a function, where there is one to read, and with its options."""
    source = ""
    with suppress(OSError, TypeError):
        source = inspect.getsource(function)
    return hashlib.sha256(f"{source}|{sorted(options.items(), key=str)}".encode()).hexdigest()[:12]
