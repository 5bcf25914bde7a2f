"""A toy problem that needs no table, and evaluators that misbehave on purpose."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

from bonas_core.errors import TrainingDivergedError
from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.problem import Problem, build
from bonas_core.settings import parse_settings
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import SearchSpace
from bonas_core.storage import read_json, write_whole
from bonas_core.trials import TIME_COLUMNS, Trial

_WORTH = {"nor_conv_3x3": 3.0, "nor_conv_1x1": 2.0, "skip_connect": 1.5, "avg_pool_3x3": 0.5, "none": 0.0}


class ToyEvaluator:
    """A made-up accuracy of NAS-Bench-201 cells: a sum over operations with a little noise drawn from the cell.

    Args:
        space: the space of the cells.
        fail_every: every trial whose seed is divisible by this raises (0: none); likewise the others.
        diverge_every: raises a divergence.
        nan_every: returns what is no number.
        exhaust_every: asks for more memory than there is.
        hang_every: does not end within an hour.
        kill_every: kills its process, as the system does when memory runs out.
    """

    objective = "toy accuracy"
    unit = "fraction"
    direction = "maximise"

    def __init__(
        self,
        space: SearchSpace,
        fail_every: int = 0,
        diverge_every: int = 0,
        nan_every: int = 0,
        exhaust_every: int = 0,
        hang_every: int = 0,
        kill_every: int = 0,
    ) -> None:
        self.space = space
        self._troubles = {
            "fail": fail_every,
            "diverge": diverge_every,
            "nan": nan_every,
            "exhaust": exhaust_every,
            "hang": hang_every,
            "kill": kill_every,
        }
        self.fingerprint = f"toy-{self._troubles}"

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        """Scores a cell from 0 to 1, a tenth of it noise; a trial whose seed asks for trouble gets that instead."""
        for trouble, every in self._troubles.items():
            if every and context.seed % every == 0:
                outcome = _misbehave(trouble)
                if outcome is not None:
                    return outcome
        operations = architecture.operations[1:-1]
        worth = sum(_WORTH[operation] * (1 + place % 3) for place, operation in enumerate(operations)) / 36
        noise = int(hashlib.sha256(architecture.key.encode()).hexdigest()[:8], 16) / 2**32
        context.progress(1, {"objective": worth})
        return Outcome(0.9 * worth + 0.1 * noise, {"test": worth}, epochs=1)


def _misbehave(trouble: str) -> Outcome | None:
    if trouble == "fail":
        raise RuntimeError("this trial fails on purpose")
    if trouble == "diverge":
        raise TrainingDivergedError("this trial diverges on purpose")
    if trouble == "nan":
        return Outcome(float("nan"))
    if trouble == "exhaust":
        bytearray(1 << 62)
    if trouble == "hang":
        threading.Event().wait(3600)
    if trouble == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return None


class ToyTraining(ToyEvaluator):
    """`ToyEvaluator` in two epochs, of which each leaves a checkpoint that the training goes on from.

    `trained` holds (seed, epoch) of all epochs that were trained in this process.
    """

    trained: ClassVar[list[tuple[int, int]]] = []

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        """Trains those of two epochs that the checkpoint lacks, then scores the cell as `ToyEvaluator` does."""
        assert context.checkpoints is not None
        state = context.checkpoints / "epoch.json"
        done = read_json(state)["epoch"] if state.is_file() else 0
        for epoch in range(done + 1, 3):
            self.trained.append((context.seed, epoch))
            write_whole(state, json.dumps({"epoch": epoch}).encode())
            context.progress(epoch, {})
        return super().evaluate(architecture, context)


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
