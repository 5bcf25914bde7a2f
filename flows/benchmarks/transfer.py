"""Transfer between sub-spaces (paper section 4.4.2): pre-train on all smaller cells, search among the larger ones.

The pre-trained predictor goes through the model registry, and searches start from it as any search does that names a
registered model in `predictor.warm_start`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from bonas_core.errors import SettingsError, TableError
from bonas_core.evaluators.base import ClosedEvaluator
from bonas_core.evaluators.table import holds_graphs, read_graphs, read_whole
from bonas_core.methods.bonas.strategy import Bonas
from bonas_core.problem import build
from bonas_core.settings import Settings, TableSettings
from bonas_core.spaces.pool import PoolSpace
from bonas_core.storage import write_table
from bonas_core.trials import Trials
from flows.benchmarks.plan import Plan
from flows.benchmarks.searches import Method, Results, Study, preset_of, run_study, search_settings
from flows.running.opening import fetched_model

SMALL, LARGE = 6, 7
"""Vertices of the cells that are learnt from, and of those that are searched."""
METHODS = FROM_SCRATCH, PRE_TRAINED = "from-scratch", "pre-trained"
ALIAS = "pretrained"
_PRETRAINING = {"predictor.epochs": 10, "predictor.batch_size": 256, "method.retrain_every": 1}


def transfer(plan: Plan) -> Results:
    """Runs searches among the 7-vertex cells from a predictor of the 6-vertex ones, and without one.

    Raises:
        InputError: a setting or method is unknown, or the table is not one of graphs of both sizes.
    """
    plan.choose(METHODS)  # says what is wrong before anything is trained
    folder, preset = plan.folder, preset_of(plan.space)
    settings = search_settings(preset, {}, 0, plan.overrides)
    parts = _parts(settings)
    plan.make_folder()
    small, large = (folder / f"cells-of-{vertices}-vertices.parquet" for vertices in parts)
    for path, part in zip((small, large), parts.values(), strict=True):
        write_table(path, part)
    own = [*plan.overrides, f"evaluator.table={small}"]
    uri = _pretrained(search_settings(preset, _PRETRAINING, 0, own), folder)
    warm = str(fetched_model(uri, settings.tracking.uri))
    study = Study(
        "Transfer, samples to the optimum of the 7-vertex cells",
        {
            FROM_SCRATCH: Method({"method.sampler": "evolution"}, "pool", {plan.space: 1386.4}),
            PRE_TRAINED: Method(
                {"method.sampler": "evolution", "predictor.warm_start": warm}, "pool", {plan.space: 511.9}
            ),
        },
        f"`{PRE_TRAINED}` starts every training from a predictor of all {SMALL}-vertex cells, taken from the registry "
        f"as `{uri}`. The paper needs 2.7 times fewer samples with it, in NAS-Bench-101.",
        reference=PRE_TRAINED,
        figure=True,
    )
    return run_study(study, replace(plan, overrides=(*plan.overrides, f"evaluator.table={large}")))


def _parts(settings: Settings) -> dict[int, pa.Table]:
    """Picks the rows of a table whose cells have so many vertices, for the smaller and the larger number.

    Raises:
        InputError: there is no such table, it does not fit the settings, or it has no cells of either size.
    """
    evaluator = settings.evaluator
    if not isinstance(evaluator, TableSettings) or not evaluator.table:
        raise SettingsError("benchmark transfer: needs a table; set evaluator.table=PATH")
    build(settings)  # checks the table
    path = Path(evaluator.table)
    if not holds_graphs(path):
        raise SettingsError(
            f"benchmark transfer: table `{path}` has no `ops` to count vertices by; use one of NAS-Bench-101"
        )
    whole, sizes = read_whole(path), np.array([len(ops) for ops in read_graphs(path)[1]])
    parts = {vertices: whole.filter(sizes == vertices) for vertices in (SMALL, LARGE)}
    for vertices, part in parts.items():
        if not len(part):
            raise TableError(
                f"table `{path}` has no cells of {vertices} vertices; it needs those of {SMALL} and {LARGE}"
            )
    return parts


def _pretrained(settings: Settings, folder: Path) -> str:
    """Trains a predictor on every cell of a table, unless it is in the folder, and registers it; returns its URI."""
    from tasks.mlflow_store.client import connect
    from tasks.mlflow_store.registry import register_predictor

    problem = build(settings)
    strategy, evaluator = problem.strategy, problem.evaluator
    assert isinstance(strategy, Bonas)
    # a part of a space is enumerated in the order of its table, as the objectives are
    assert isinstance(evaluator, ClosedEvaluator)
    assert isinstance(evaluator.space, PoolSpace)
    cells = evaluator.space.enumerate()
    everything = Trials(
        cells,
        evaluator.space.keys(cells),
        np.array([problem.objective.score(value) for value in evaluator.objectives()]),
        np.ones(len(cells), dtype=bool),
        np.zeros(len(cells), dtype=bool),
    )
    strategy.retrain(everything, 0, folder)
    return register_predictor(connect(settings.tracking.uri), strategy.fit_model(everything, 0), ALIAS)
