"""Options that several commands have, and steps that they take before they begin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bonas_core.errors import SettingsError

Store = Annotated[
    str | None, typer.Option("--store", help="Folder of searches or s3://bucket/prefix; by default ./.bonas/searches.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="A setting as name=value; may be repeated.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow server; by default the local store.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
SearchId = Annotated[str, typer.Argument(metavar="ID", help="The search's id; `bonas list` shows them.")]
SearchIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID ...]", help="Searches; by default all of the store.")
]


def prepare_services() -> None:
    """Points Prefect and MLflow at the home folder; call it before importing either."""
    from tasks.home.environment import use_local_services

    use_local_services()
    # the display has a line for each failed trial; Prefect would print a traceback for each attempt
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def check_replaceable(option: str, file: Path, overwrite: bool) -> None:
    """Checks that a file may be written.

    Args:
        option: that names the file.
        file: to be written.
        overwrite: whether it may be there already.

    Raises:
        SettingsError: it is a folder, or there already.
    """
    file = file.expanduser()
    if file.is_dir():
        raise SettingsError(f"{option} `{file}` is a folder; name a file")
    if file.exists() and not overwrite:
        raise SettingsError(f"{option} `{file}` is there already; name another file, or replace it with --overwrite")
