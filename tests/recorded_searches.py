"""What searches choose, written down: every method and sampler on two spaces, so that a change of structure can be
seen to change nothing else.

`python tests/recorded_searches.py` makes the recording `recorded_searches.parquet` anew; do so only where searches are
meant to choose otherwise, and say why in the commit.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_info

from bonas_core.problem import build, build_space
from bonas_core.search import run
from bonas_core.settings import parse_settings
from bonas_core.testing import ToyEvaluator

RECORDING = Path(__file__).with_suffix(".parquet")
TRIALS = 60
SEEDS = (0, 1, 2)
SPACES = ("nasbench201", "nasbench101")

_SMALL_MLP = {"kind": "mlp", "widths": [64, 32], "epochs": 30}
_LSTM = {"kind": "lstm", "width": 32, "epochs": 30}
METHODS: dict[str, dict[str, Any]] = {
    **{
        f"bonas-{sampler}": {"method": {"sampler": sampler}}
        for sampler in ("evolution", "random", "exhaustive", "reinforce")
    },
    "bonas-paper": {"method": {"recipe": "paper"}},
    "bonas-mlp": {"method": {"sampler": "random"}, "predictor": _SMALL_MLP},
    "bonas-lstm": {"method": {"sampler": "random"}, "predictor": _LSTM},
    "bonas-posterior": {"method": {"incumbent": "posterior"}, "predictor": {"normalisation": "row", "loss": "exp"}},
    "bonas-exhaustive-batch-4": {"method": {"sampler": "exhaustive", "batch": 4}},
    "bonas-evolution-batch-10": {"method": {"sampler": "evolution", "batch": 10}},
    "random": {"method": {"name": "random"}},
    "re": {"method": {"name": "regularised-evolution"}},
    "re-autodl": {"method": {"name": "regularised-evolution", "preset": "autodl"}},
    "re-repeats-batch-4": {"method": {"name": "regularised-evolution", "repeats": True, "batch": 4}},
    "local-search": {"method": {"name": "local-search"}},
    "local-search-first-batch-4": {"method": {"name": "local-search", "move": "first", "batch": 4}},
    "bananas": {"method": {"name": "bananas"}},
    "weaknas-batch-4": {"method": {"name": "weaknas", "batch": 4}},
    "optuna-tpe": {"method": {"name": "optuna-tpe"}},
    "optuna-gp": {"method": {"name": "optuna-gp"}},
}
"""Settings on top of the defaults, by name."""
MODEL_FREE = ("random", "re", "local-search")
"""Beginnings of the names of methods that compute nothing whose last digits depend on the processor."""


@dataclass(frozen=True)
class Recorded:
    """One search of the recording."""

    name: str
    space: str
    seed: int

    def trials(self) -> pd.DataFrame:
        """Keys and predicted means of its trials, as this version of the code chooses them."""
        tree = METHODS[self.name] | {"space": self.space, "seed": self.seed, "budget": {"trials": TRIALS}}
        tree["evaluator"] = {"kind": "recorded_searches:Made"}
        settings = parse_settings(tree, "recorded")
        rows = run(build(settings, Made(_space(self.space)))).rows
        return pd.DataFrame(
            {
                "name": self.name,
                "space": self.space,
                "seed": self.seed,
                "trial": [row.trial for row in rows],
                "key": np.array([_number(row.key) for row in rows], dtype=np.uint64),
                "predicted_mean": np.array([row.predicted_mean for row in rows], dtype=float),
            }
        )


class Made(ToyEvaluator):
    """A made-up accuracy of any cell: what its operations are worth, its length, and a little that is its own."""

    def __init__(self, space: Any, **_: Any) -> None:
        super().__init__(space)

    def evaluate(self, architecture: Any, context: Any) -> Any:
        from bonas_core import evaluators

        if self.space.name == "nasbench201":
            return super().evaluate(architecture, context)
        worth = sum(3.0 if "3x3" in label else 1.0 for label in architecture.operations) / (3 * architecture.vertices)
        depth = [0] * architecture.vertices
        for i, j in sorted(architecture.edges):
            depth[j] = max(depth[j], depth[i] + 1)
        value = 0.5 * worth + 0.05 * depth[-1] + 0.1 * _number(architecture.key) / 2**64
        return evaluators.base.Outcome(value)


def searches() -> Iterator[Recorded]:
    """All searches of the recording; Optuna's GP asks the rest of its space for minutes a trial, so it is left out."""
    return (
        Recorded(name, space, seed)
        for name in METHODS
        for space in SPACES
        for seed in SEEDS
        if (name, space) != ("optuna-gp", "nasbench101")
    )


def kernels() -> str:
    """What decides on the last digits of sums: the processor's kernels of numpy and of torch."""
    blas = {info.get("architecture", "") for info in threadpool_info() if info["user_api"] == "blas"}
    return f"{'/'.join(sorted(blas))} {torch.backends.cpu.get_cpu_capability()} {torch.__version__} {np.__version__}"


def _space(name: str) -> Any:
    space = build_space(name)
    if name == "nasbench101":  # as a table narrows it; it cannot be enumerated as a whole
        cells = space.sample(3000, np.random.default_rng(0))
        return _pool(space, cells[np.unique(space.keys(cells), return_index=True)[1]])
    return space


def _pool(space: Any, cells: Any) -> Any:
    from bonas_core.spaces.pool import PoolSpace

    return PoolSpace(space, cells)


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def _one(recorded: Recorded) -> pd.DataFrame:
    torch.set_num_threads(1)
    return recorded.trials()


def main() -> None:
    """Makes the recording."""
    with ProcessPoolExecutor(int(sys.argv[1]) if sys.argv[1:] else 2, mp_context=get_context("spawn")) as pool:
        frames = []
        for frame in pool.map(_one, searches()):
            frames.append(frame)
            print(f"{len(frames)}: {frame['name'][0]}, {frame['space'][0]}", file=sys.stderr, flush=True)
    frame = pd.concat(frames, ignore_index=True)
    for column in ("name", "space"):
        frame[column] = frame[column].astype("category")
    frame.attrs["kernels"] = kernels()
    frame.to_parquet(RECORDING, compression="zstd", index=False)
    print(
        f"{len(frame)} trials of {len(frames)} searches: {RECORDING}, {RECORDING.stat().st_size} bytes", file=sys.stderr
    )


if __name__ == "__main__":
    main()
