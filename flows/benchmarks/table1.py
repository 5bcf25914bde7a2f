"""Table 1: how well predictors trained on most of a table rank the rest (section 4.1 of the paper)."""

from __future__ import annotations

from bonas_core.storage import write_whole
from flows.benchmarks.figure3 import draw
from flows.benchmarks.plan import Plan
from flows.benchmarks.predictors import run_predictors, table


def table1(plan: Plan) -> str:
    """Trains every predictor on all splits and writes `table1.md`, `runs.parquet` and `figure3.png`.

    Args:
        plan: its seeds are numbers of splits, its methods names of `predictors.ENTRIES`.

    Returns:
        the table, as Markdown.

    Raises:
        SettingsError: space, method or setting is unknown, or the objective is not a table's.
        TableError: the table is too small to be split.
    """
    results = run_predictors(plan)
    write_whole(plan.folder / "figure3.png", draw(results))
    text = table(results)
    write_whole(plan.folder / "table1.md", text.encode())
    return text
