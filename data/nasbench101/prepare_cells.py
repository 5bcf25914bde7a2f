"""Prepares `nasbench101-cells`: a part of NAS-Bench-101 with the accuracy of one training run per cell.

A search of it is a search of these cells and no others. The table stands beside the official one, because a single run
and the mean of three are different objectives.
"""

from __future__ import annotations

from pathlib import Path

from data.nasbench101.prepare import check_as, from_parquet, write

SOURCE = "a Parquet with hash, adjacency, ops and val_acc_108 of one run per cell; see data/nasbench101/README.md"
_NAME = "nasbench101-cells"


def prepare(source: Path, target: Path) -> str:
    """Checks a source and writes its table.

    Raises:
        TableError: the source cannot be used; nothing is written then.
    """
    return write(source, target, _NAME, *from_parquet(source, "one single run"))


def check(target: Path) -> str:
    """Checks the prepared table.

    Raises:
        TableError: it is missing or not what was written.
    """
    return check_as(target, _NAME)
