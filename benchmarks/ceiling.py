"""How far structure alone leads to the best cell of a table: where a model that has seen nearly all others ranks it.

.venv/bin/python benchmarks/ceiling.py [--space nasbench101] [--set evaluator.table=FILE] [--folds 5] [--repeats 3]

Boosted trees on counts of paths and edges learn the ranks of all cells but one fold, and predict that fold; with every
fold in turn, each cell is predicted by a model that has not seen it. A search that knew as much, and took cells from
the best predicted one down, would need as many samples as the rank of the best cell in these predictions. Where that is
large, what makes the best cell the best is not in its structure, but in the noise of its training.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor

from bonas_core.evaluators.base import ClosedEvaluator
from bonas_core.methods.bonas.targets import transform
from bonas_core.problem import build
from flows.benchmarks.predictors import graph_counts
from flows.benchmarks.searches import preset_of, search_settings


def held_out(counts: NDArray[np.float32], targets: NDArray[np.float64], folds: int, seed: int) -> NDArray[np.float64]:
    """(n,) predictions of n targets, each by a model that was trained on the other folds."""
    fold = np.random.default_rng(seed).permutation(len(targets)) % folds
    predicted = np.empty(len(targets))
    for k in range(folds):
        trees = HistGradientBoostingRegressor(max_iter=400, learning_rate=0.06, early_stopping=False, random_state=seed)
        trees.fit(counts[fold != k], targets[fold != k])
        predicted[fold == k] = trees.predict(counts[fold == k])
    return predicted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    problem = build(search_settings(preset_of(arguments.space), {}, 0, arguments.overrides))
    evaluator, space = problem.evaluator, problem.space
    assert isinstance(evaluator, ClosedEvaluator), "needs a table"
    scores = np.array([problem.objective.score(value) for value in evaluator.objectives()])
    counts = graph_counts(space.encode(space.enumerate()), space.positional)
    targets = transform(scores, "rank").values
    ranks, correlations = [], []
    for seed in range(arguments.repeats):
        predicted = held_out(counts, targets, arguments.folds, seed)
        best = scores == scores.max()
        ranks.append(rankdata(-predicted)[best].min())
        correlations.append(spearmanr(predicted, scores)[0])
    error = np.std(ranks, ddof=1) / math.sqrt(len(ranks)) if len(ranks) > 1 else math.nan
    print(f"{problem.objective.name}: {len(scores)} cells")
    print(f"rank correlation of held-out predictions {np.mean(correlations):.3f}")
    print(f"rank of the best cell in them {np.mean(ranks):.1f} ± {error:.1f} ({', '.join(f'{r:.0f}' for r in ranks)})")


if __name__ == "__main__":
    main()
