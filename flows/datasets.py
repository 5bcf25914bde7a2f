"""Preparing and checking data sets: each has a `prepare` module under `data/`."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import data
from bonas_core.errors import InputError, SettingsError
from flows.presets import prepared_table


def prepare(name: str, source: Path | None) -> str:
    """Writes the prepared table of a data set; says where it is and what is in it."""
    module = _module(name)
    if source is None:
        raise InputError(
            f"data prepare {name}: the file is yours to bring; give it with --source PATH ({module.SOURCE})"
        )
    return str(module.prepare(source, prepared_table(name)))


def check(name: str) -> str:
    """Checks the prepared table of a data set; says what is in it."""
    return str(_module(name).check(prepared_table(name)))


def _module(name: str) -> ModuleType:
    folder = Path(str(data.__file__)).parent
    known = sorted(path.parent.name for path in folder.glob("*/prepare.py"))
    if name not in known:
        raise SettingsError(f"data set `{name}` is unknown; use one of {', '.join(known)}")
    return importlib.import_module(f"data.{name}.prepare")
