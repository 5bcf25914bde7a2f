"""Speed and memory of the core, on one thread, in one run; ratios are what to compare, seconds depend on the machine.

.venv/bin/python benchmarks/core.py [--without-optuna]
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402

from bonas_core.methods.bonas import regression  # noqa: E402
from bonas_core.methods.bonas.acquisition import log_expected_improvement  # noqa: E402
from bonas_core.methods.samplers.exhaustive import ExhaustiveSampler  # noqa: E402
from bonas_core.problem import build_strategy  # noqa: E402
from bonas_core.settings import Settings, parse_settings  # noqa: E402
from bonas_core.spaces.base import SearchSpace  # noqa: E402
from bonas_core.spaces.nasbench101 import NASBench101  # noqa: E402
from bonas_core.spaces.nasbench201 import NASBench201  # noqa: E402
from bonas_core.trials import Objective, Trials  # noqa: E402

torch.set_num_threads(1)


def seconds(action: Callable[[], Any], repeats: int = 3) -> float:
    """The fastest of some runs."""
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def made_up(space: SearchSpace, count: int) -> Trials:
    """Trials with scores that depend on the cell."""
    cells = space.enumerate()[np.random.default_rng(0).permutation(space.size or 0)[:count]]
    scores = 0.8 + 0.1 * np.sin(cells.astype(float) @ np.arange(1, cells.shape[1] + 1))
    return Trials(cells, space.keys(cells), scores, np.ones(count, dtype=bool), np.zeros(count, dtype=bool))


def settings(space: str, **parts: Any) -> Settings:
    return parse_settings({"space": space, "evaluator": {"kind": "bonas_core.testing:ToyEvaluator"}, **parts}, "speed")


def strategy(space: SearchSpace, sampler: str) -> Any:
    return made(space, {"sampler": sampler})


def made(space: SearchSpace, method: dict[str, Any]) -> Any:
    return build_strategy(settings(space.name, method=method), space, Objective("made up", "fraction"))


def pool_proposals(space: SearchSpace, trials: int) -> None:
    """Proposals of a whole period between retrainings, with its one retraining."""
    own = strategy(space, "evolution")
    everything = made_up(space, trials + 10)

    def period() -> None:
        own.remember(None)
        for n in range(trials, trials + 10):
            own.propose(everything.first(n), 1, 0)

    print(f"{space.name}: {10 / seconds(period):.1f} proposals/s at {trials} trials, pool 1,000, retraining amortised")


def retraining(space: SearchSpace, trials: int) -> None:
    own, seen = strategy(space, "evolution"), made_up(space, trials)

    def retrain() -> None:
        own.remember(None)
        own.fit_predictor(seen, 0)

    print(f"{space.name}: {seconds(retrain, 2):.2f} s to retrain on {trials} trials")


def scoring_of_a_whole_space() -> None:
    """Embedding and EI of all 423,624 cells, against nothing but the matrix products of the same shapes."""
    space = NASBench101()
    own, seen = strategy(space, "evolution"), made_up(space, 105)
    fitted = own.fit_predictor(seen, 0)
    surrogate = own.fit_surrogate(seen, own.learner.embed(fitted, seen.genotypes))
    cells, rng = space.enumerate(), np.random.default_rng(0)

    def score() -> None:
        for begin in range(0, len(cells), 1 << 15):
            own.score(surrogate, own.learner.embed(fitted, cells[begin : begin + (1 << 15)]), rng)

    gcn = own.learner.predictor
    E, H, V, B = gcn.ensemble, gcn.width, 8, 1024
    rank = len(surrogate.regression.shrinkage)
    P = torch.rand(B, V, V)
    first, layer = torch.rand(B * V, 6), torch.rand(E, B * V, H)
    W0, W = torch.rand(E, 6, H), torch.rand(E, H, H)
    phi, basis = torch.rand(B, E * H), torch.rand(E * H, rank)

    def products() -> None:
        for _ in range(0, len(cells), B):
            torch.matmul(first, W0)
            for _ in range(gcn.layers - 1):
                torch.matmul(P, layer.view(E, B, V, H))
                torch.matmul(layer, W)
            torch.matmul(phi, basis)

    whole, bare = seconds(score, 1), seconds(products, 1)
    print(f"nasbench101: embedding and EI of {len(cells):,} cells {whole:.1f} s; bare products {bare:.1f} s; ratio "
          f"{whole / bare:.2f}")  # fmt: skip


def keys_and_enumeration() -> None:
    space = NASBench101()
    begin = time.perf_counter()
    cells = space.enumerate()
    print(f"nasbench101: {time.perf_counter() - begin:.2f} s to enumerate {len(cells):,} cells")
    print(f"nasbench101: {len(cells) / seconds(lambda: space.keys(cells), 2) / 1e6:.2f} million canonical keys/s")


def regression_update() -> None:
    rng = np.random.default_rng(0)
    for n, M in ((100, 64), (100, 512), (1000, 64)):
        features, targets = rng.normal(size=(n, M)), rng.normal(size=n)
        candidates = rng.normal(size=(1000, M)).astype(np.float32)

        def update(x: np.ndarray = features, t: np.ndarray = targets, c: np.ndarray = candidates) -> None:
            log_expected_improvement(regression.fit(x, t).posterior(c, precision=np.float32), 1.0)

        print(f"regression: {1000 * seconds(update, 5):.1f} ms to refit to {n} trials of {M} features and score 1,000")


def against_optuna() -> None:
    space = NASBench201()
    for n in (50, 200, 500):
        trials = made_up(space, n)
        gp = made(space, {"name": "optuna-gp"})
        theirs = seconds(lambda gp=gp, trials=trials: gp.propose(trials, 1, 0), 1)
        own, longer = strategy(space, "exhaustive"), made_up(space, n + 10)
        begin = time.perf_counter()
        for k in range(10):
            own.propose(longer.first(n + k), 1, 0)
        ours = (time.perf_counter() - begin) / 10
        print(f"nasbench201 at {n} trials: Optuna GP {theirs:.2f} s a proposal, BONAS over every cell {ours:.2f} s, "
              f"retraining amortised; ratio {theirs / ours:.1f}")  # fmt: skip


def memory() -> None:
    space = NASBench101()
    own = strategy(space, "evolution")
    own.sampler = ExhaustiveSampler()
    trials = made_up(space, 60)
    for n in (20, 40, 60):
        own.propose(trials.first(n), 1, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"memory: {peak:.2f} GiB at most in this process, a search over all 423,624 cells included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-optuna", action="store_true")
    skipped = parser.parse_args().without_optuna
    keys_and_enumeration()
    regression_update()
    for chosen in (NASBench201(), NASBench101()):
        pool_proposals(chosen, 105)
        for size in (100, 1000):
            retraining(chosen, size)
    scoring_of_a_whole_space()
    memory()
    if not skipped:
        against_optuna()
