"""BONAS: Bayesian-optimised neural architecture search, as a plain library.

Everything that a search on one machine needs can be imported from here; what is heavy is loaded when it is first used.

    from bonas_core import Search

    search = Search("nasbench201", train, trials=50)
    print(search.run())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bonas_core.errors import BonasError, InputError, TrainingDivergedError
    from bonas_core.evaluators.base import EvaluationContext, Evaluator, Outcome
    from bonas_core.methods.base import Proposal, Strategy, initial_design
    from bonas_core.problem import Problem, build
    from bonas_core.search.ask_tell import Asked, Search
    from bonas_core.search.driver import run
    from bonas_core.settings import MethodSettings, Settings, parse_settings
    from bonas_core.spaces.architecture import Architecture
    from bonas_core.spaces.base import SearchSpace
    from bonas_core.spaces.encoding import GraphBatch
    from bonas_core.trials import Objective, Trial, Trials, TrialState
    from bonas_core.trials.history import TrialHistory

_HOMES = {
    "bonas_core.problem": ("Problem", "build"),
    "bonas_core.errors": ("BonasError", "InputError", "TrainingDivergedError"),
    "bonas_core.evaluators.base": ("EvaluationContext", "Evaluator", "Outcome"),
    "bonas_core.methods.base": ("Proposal", "Strategy", "initial_design"),
    "bonas_core.search.ask_tell": ("Asked", "Search"),
    "bonas_core.search.driver": ("run",),
    "bonas_core.settings": ("MethodSettings", "Settings", "parse_settings"),
    "bonas_core.spaces.architecture": ("Architecture",),
    "bonas_core.spaces.base": ("SearchSpace",),
    "bonas_core.spaces.encoding": ("GraphBatch",),
    "bonas_core.trials": ("Objective", "Trial", "TrialState", "Trials"),
    "bonas_core.trials.history": ("TrialHistory",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Architecture",
    "Asked",
    "BonasError",
    "EvaluationContext",
    "Evaluator",
    "GraphBatch",
    "InputError",
    "MethodSettings",
    "Objective",
    "Outcome",
    "Problem",
    "Proposal",
    "Search",
    "SearchSpace",
    "Settings",
    "Strategy",
    "TrainingDivergedError",
    "Trial",
    "TrialHistory",
    "TrialState",
    "Trials",
    "build",
    "initial_design",
    "parse_settings",
    "run",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module `bonas_core` has no `{name}`")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
