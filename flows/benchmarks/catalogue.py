"""The benchmarks of `bonas benchmark NAME`: from a name to a table, its rows and its figures in one folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from bonas_core.errors import SettingsError
from bonas_core.storage import write_whole
from flows.benchmarks.plan import Plan
from flows.benchmarks.searches import Results, Study, preset_of, run_study, table
from flows.benchmarks.studies import STUDIES
from tasks.home.environment import home

Benchmark = Callable[[Plan], str]
"""A function that runs and writes everything, and returns the table."""


def benchmarks() -> dict[str, Benchmark]:
    """Lists all benchmarks by name."""
    return {
        "table1": _of_module("table1"),
        "figure3": _of_module("figure3"),
        **{name: partial(_study, name, study) for name, study in STUDIES.items()},
        "transfer": _transfer,
        "cells": _of_module("cells"),
        "trainings": _of_module("trainings"),
    }


def folder_of(name: str) -> Path:
    """Names the folder that a benchmark writes to by default."""
    return home() / "benchmarks" / name


def run_benchmark(name: str, plan: Plan) -> str:
    """Runs a benchmark and returns its table, which is also written to its folder with its rows and figures.

    Raises:
        InputError: benchmark, space, method or setting is unknown, or the folder cannot be written.
    """
    known = benchmarks()
    if name not in known:
        raise SettingsError(f"benchmark `{name}` is unknown; use one of {', '.join(known)}")
    preset_of(plan.space)
    return f"{known[name](plan)}\nwritten to {plan.folder}"


def _of_module(name: str) -> Benchmark:
    """Makes a benchmark of the function that its module is named after; the module is imported when it runs."""

    def run(plan: Plan) -> str:
        return str(getattr(import_module(f"flows.benchmarks.{name}"), name)(plan))

    return run


def _study(name: str, study: Study, plan: Plan) -> str:
    return _written(name, run_study(study, plan), plan.folder)


def _transfer(plan: Plan) -> str:
    from flows.benchmarks.transfer import transfer

    return _written("transfer", transfer(plan), plan.folder)


def _written(name: str, results: Results, folder: Path) -> str:
    if results.study.figure:
        from flows.benchmarks.curves import draw

        write_whole(folder / f"{name}.png", draw(results))
    text = table(results)
    write_whole(folder / f"{name}.md", text.encode())
    return text
