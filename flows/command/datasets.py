"""Preparation and check of data sets: `data/X/prepare.py` prepares data set X, `data/X/prepare_Y.py` data set X-Y.

Such a module has `prepare(source, target)`, `check(target)` and `SOURCE`, which says what the source is; it is None
where none is needed, and `prepare(target)` is then enough. `SUFFIX` is that of its file, by default that of a table.
`SIZE` is the side of its images by default, where `prepare` takes a `size`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import data
from bonas_core.errors import InputError, SettingsError
from flows.running.presets import prepared_table


def prepare(name: str, source: Path | None, size: int | None = None) -> str:
    """Writes the prepared file of a data set; says where it is and what is in it."""
    module = _module(name)
    options = {} if size is None else {"size": size}
    if options and not hasattr(module, "SIZE"):
        raise InputError(f"data prepare {name}: its images have one size; leave out --size")
    if module.SOURCE is None:
        if source is not None:
            raise InputError(f"data prepare {name}: it is computed, not read from a file; leave out --source")
        return str(module.prepare(_target(name, module)))
    if source is None:
        raise InputError(
            f"data prepare {name}: the file is yours to bring; give it with --source PATH ({module.SOURCE})"
        )
    return str(module.prepare(source, _target(name, module), **options))


def check(name: str) -> str:
    """Checks the prepared file of a data set; says what is in it."""
    module = _module(name)
    return str(module.check(_target(name, module)))


def _target(name: str, module: ModuleType) -> Path:
    return prepared_table(name).with_suffix(getattr(module, "SUFFIX", ".parquet"))


def _module(name: str) -> ModuleType:
    folder = Path(str(data.__file__)).parent
    known = {
        path.parent.name + path.stem.removeprefix("prepare").replace("_", "-"): f"data.{path.parent.name}.{path.stem}"
        for path in folder.glob("*/prepare*.py")
    }
    if name not in known:
        raise SettingsError(f"data set `{name}` is unknown; use one of {', '.join(sorted(known))}")
    return importlib.import_module(known[name])
