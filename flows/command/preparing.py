"""Commands `bonas data prepare` and `bonas data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="NAME", help="Data set, for instance nasbench201.")]


def prepare(
    name: Name,
    source: Annotated[Path | None, typer.Option(help="The official file or folder, or your CSV or Parquet.")] = None,
    size: Annotated[
        int | None, typer.Option(min=8, max=1024, help="Side of the images, where it can be chosen.")
    ] = None,
) -> None:
    """Turn official or own files into a checked table or image set that presets find by themselves."""
    from flows.command.datasets import prepare as prepared

    print(prepared(name, source, size))


def check(name: Name) -> None:
    """Check a prepared table or image set against its checksum and its rules."""
    from flows.command.datasets import check as checked

    print(checked(name))
