"""Sizes of published cells against Tables 3 and 4 of the paper: parameters and multiply-adds, counted, not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from bonas_core.errors import SettingsError
from bonas_core.networks.published import IMAGES, PUBLISHED, WIDTHS, Layout, published_network
from bonas_core.networks.size import network_size
from bonas_core.storage import write_table, write_whole
from flows.benchmarks.plan import Plan

_SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("dataset", pa.string()),
        ("network", pa.string()),
        ("channels", pa.int64()),
        ("cells", pa.int64()),
        ("params", pa.int64()),
        ("mult_adds", pa.int64()),
        ("paper_params", pa.float64()),
        ("paper_mult_adds", pa.float64()),
    ]
)
"""`network` is `darts` for the networks of DARTS, `authors` for that of the cell's authors where it is another one;
`paper_params` and `paper_mult_adds` are what the paper prints, in units rather than millions."""
_CLOSE = 0.02


def cells(plan: Plan) -> str:
    """Counts all published cells, writes `cells.parquet` and `cells.md`, and returns the table.

    Raises:
        SettingsError: methods or settings are given.
    """
    if plan.methods is not None or plan.overrides:
        raise SettingsError("benchmark cells: counts published cells, without methods or settings; leave them out")
    plan.make_folder()
    rows = sizes()
    write_table(plan.folder / "cells.parquet", pa.Table.from_pylist(rows, schema=_SCHEMA))
    text = table(rows)
    write_whole(plan.folder / "cells.md", text.encode())
    return text


def sizes(names: Sequence[str] = tuple(PUBLISHED), datasets: Sequence[str] = tuple(IMAGES)) -> list[dict[str, Any]]:
    """Counts a row for every cell, data set and network: that of DARTS, and the authors' own where that differs."""
    rows = []
    for name in names:
        cell = PUBLISHED[name]
        for dataset in datasets:
            usual = Layout(*WIDTHS[dataset])
            own = cell.layouts.get(dataset, usual)
            for layout in dict.fromkeys((usual, own)):
                network = published_network(name, dataset, generator=torch.Generator(), own=layout != usual)
                size = network_size(network, IMAGES[dataset])
                rows.append(
                    {
                        "cell": name,
                        "dataset": dataset,
                        "network": "darts" if layout == usual else "authors",
                        "channels": layout.channels,
                        "cells": len(network.cells),
                        "params": size.params,
                        "mult_adds": size.mult_adds,
                        "paper_params": _units(cell.params.get(dataset)),
                        "paper_mult_adds": _units(cell.mult_adds.get(dataset)),
                    }
                )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes as Markdown what was counted beside what the paper prints, and why they differ where they do."""
    columns = (
        "cell", "data set", "network of", "C", "cells", "params", "paper", "differs", "mult-adds", "paper", "differs",
    )  # fmt: skip
    lines = [
        "# Sizes of published cells, against Tables 3 and 4",
        "",
        "Parameters without auxiliary heads; multiply-adds of convolutions and linear layers for one image (3x32x32 or "
        "3x224x224). The paper prints the size of each cell's own network: where that is not DARTS's and is known, a "
        "second row has it. `known` says whether a row is such a network; those are what to compare.",
        "",
        f"| {' | '.join(columns)} | known |",
        "|" + " --- |" * (len(columns) + 1),
    ]
    for row in rows:
        params = _compared(row["params"], row["paper_params"], 2)
        products = _compared(row["mult_adds"], row["paper_mult_adds"], 0)
        known = "yes" if _is_known(row) else "no"
        start = (row["cell"], row["dataset"], row["network"], row["channels"], row["cells"])
        lines.append(f"| {' | '.join(map(str, (*start, *params, *products, known)))} |")
    lines += ["", f"Known networks that differ by more than {_CLOSE:.0%}, and cells whose network is not known:", ""]
    named = dict.fromkeys(row["cell"] for row in rows)
    lines += [f"* {name}: {PUBLISHED[name].remark}." for name in named if PUBLISHED[name].remark]
    lines += ["", "Where the cells stand:", ""]
    lines += [f"* {name}: {PUBLISHED[name].source}." for name in named]
    lines += ["", "ASNG-NAS (Table 3) and NASNet-B and -C (Table 4) are left out: no source at hand has their cells."]
    return "\n".join(lines) + "\n"


def _is_known(row: dict[str, Any]) -> bool:
    """Tells whether a row's network is the one whose size the cell's authors published."""
    layout = PUBLISHED[row["cell"]].layouts.get(row["dataset"])
    return layout is not None and (layout == Layout(*WIDTHS[row["dataset"]])) == (row["network"] == "darts")


def _compared(counted: int, printed: float | None, digits: int) -> tuple[str, str, str]:
    millions = f"{counted / 1e6:.{digits}f} M"
    if printed is None:
        return millions, "-", "-"
    return millions, f"{printed / 1e6:g} M", f"{counted / printed - 1:+.1%}"


def _units(millions: float | None) -> float | None:
    return None if millions is None else millions * 1e6
