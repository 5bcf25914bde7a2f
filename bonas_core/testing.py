"""Small things to test searches with: a toy problem that needs no table, and evaluators that misbehave on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from bonas_core.architecture import Architecture
from bonas_core.build import Problem, build
from bonas_core.errors import TrainingDivergedError
from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.settings import parse_settings
from bonas_core.spaces.base import SearchSpace
from bonas_core.trials import TIME_COLUMNS, Trial

_WORTH = {"nor_conv_3x3": 3.0, "nor_conv_1x1": 2.0, "skip_connect": 1.5, "avg_pool_3x3": 0.5, "none": 0.0}


class ToyEvaluator:
    """A made-up accuracy of NAS-Bench-201 cells: a sum over operations with a little noise drawn from the cell.

    Args:
        space: the space of the cells.
        fail_every: every trial whose seed is divisible by this raises (0: none).
        diverge_every: likewise, with a divergence.
    """

    objective = "toy accuracy"
    unit = "fraction"
    direction = "maximise"

    def __init__(self, space: SearchSpace, fail_every: int = 0, diverge_every: int = 0) -> None:
        self.space = space
        self.fingerprint = f"toy-{fail_every}-{diverge_every}"
        self._fail_every = fail_every
        self._diverge_every = diverge_every

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        if self._fail_every and context.seed % self._fail_every == 0:
            raise RuntimeError("this trial fails on purpose")
        if self._diverge_every and context.seed % self._diverge_every == 0:
            raise TrainingDivergedError("this trial diverges on purpose")
        operations = architecture.operations[1:-1]
        worth = sum(_WORTH[operation] * (1 + place % 3) for place, operation in enumerate(operations)) / 36
        noise = int(hashlib.sha256(architecture.key.encode()).hexdigest()[:8], 16) / 2**32
        context.progress(1, {"objective": worth})
        return Outcome(0.9 * worth + 0.1 * noise, {"test": worth}, epochs=1)


def timeless(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Everything that trials hold but times: equal between a resumed search and an uninterrupted one."""
    columns = [field.name for field in fields(Trial) if field.name not in TIME_COLUMNS]
    return [{column: getattr(trial, column) for column in columns} for trial in trials]


def toy_problem(trials: int = 30, seed: int = 0, **parts: dict[str, Any]) -> Problem:
    """A search over NAS-Bench-201 cells with `ToyEvaluator`; `parts` are merged into the settings."""
    tree: dict[str, Any] = {
        "evaluator": {"kind": "bonas_core.testing:ToyEvaluator", **parts.pop("evaluator", {})},
        "budget": {"trials": trials, **parts.pop("budget", {})},
        "seed": seed,
        **parts,
    }
    return build(parse_settings(tree, "toy"))
