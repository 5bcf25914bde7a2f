"""Command `bonas benchmark`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bonas_core.errors import SettingsError
from flows.command.options import Overrides, prepare_services


def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="table1, table2, figure3, figure4, figure5, protocol, batches, parts, transfer, cells or trainings.",
        ),
    ],
    space: Annotated[str, typer.Option(help="Space to run on.")] = "nasbench201",
    seeds: Annotated[int, typer.Option(min=1, max=100_000, help="Repeats, each with a seed of its own.")] = 50,
    first_seed: Annotated[
        int, typer.Option(min=0, max=1_000_000_000, help="Seed of the first repeat; the next ones count up.")
    ] = 0,
    methods: Annotated[str | None, typer.Option(help="Methods, separated by commas; by default all.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes; by default one a core.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results; by default ./.bonas/benchmarks/NAME.")] = None,
) -> None:
    """Regenerate a table of the paper; a benchmark that was stopped goes on where it was."""
    prepare_services()
    from flows.benchmarks.catalogue import folder_of, run_benchmark
    from flows.benchmarks.plan import Plan

    chosen = None if methods is None else tuple(method.strip() for method in methods.split(",") if method.strip())
    if chosen == ():
        raise SettingsError("--methods names none; name some, or leave it out for all")
    plan = Plan(
        (out or folder_of(name)).absolute(),
        space,
        range(first_seed, first_seed + seeds),
        chosen,
        jobs or os.cpu_count() or 1,
        tuple(overrides or ()),
    )
    print(run_benchmark(name, plan))
