"""Settings by name: presets under `data/<set>/presets/`, YAML files, and what the command line puts on top."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import data
from bonas_core.errors import SettingsError
from bonas_core.registry import names
from bonas_core.settings import Settings, names_a_plugin, parse_settings, parse_yaml, with_override
from bonas_core.storage.tensors import SUFFIX
from tasks.home.environment import home

_BARE_NAME = re.compile("[a-z0-9-]+")
_LARGEST = 1 << 20  # bytes of a settings file


@dataclass(frozen=True)
class Preset:
    """Settings that ship with the project."""

    name: str
    path: Path

    @property
    def description(self) -> str:
        """The comment that opens the file."""
        return self.path.read_text().splitlines()[0].lstrip("# ").strip()


def presets() -> list[Preset]:
    """Lists all presets, by name."""
    folder = Path(str(data.__file__)).parent
    return sorted((Preset(path.stem, path) for path in folder.glob("*/presets/*.yaml")), key=lambda preset: preset.name)


def load_settings(
    source: str,
    *,
    seed: int | None = None,
    trials: int | None = None,
    store: str | None = None,
    overrides: Sequence[str] = (),
    need_images: bool = True,
) -> tuple[Settings, str]:
    """Loads the settings of a preset or YAML file, with the command line's on top.

    Args:
        source: name of a preset, or path of a file.
        seed: replaces that of the settings, as do `trials` and `store`.
        trials: of the budget.
        store: where searches are kept.
        overrides: settings as `name=value`.
        need_images: whether images that are not prepared are an error; else their name stays as it is.

    Returns:
        the settings, and the name of preset or file.

    Raises:
        SettingsError: there is no such preset or file, or a setting is wrong.
    """
    path = _find(source)
    tree: dict[str, Any] = parse_yaml(_read(path), source)
    for assignment in sorted(overrides, key=names_a_plugin, reverse=True):
        tree = with_override(tree, assignment)
    if seed is not None:
        tree["seed"] = seed
    if trials is not None:
        tree = with_override(tree, f"budget.trials={trials}")
    if store is not None:
        tree["store"] = store
    return parse_settings(located(tree, need_images), source), path.stem


def located(tree: dict[str, Any], need_images: bool = True) -> dict[str, Any]:
    """Names table and images in full: those that are prepared by their names, files by whole paths.

    Args:
        tree: of settings.
        need_images: see `load_settings`.

    Raises:
        SettingsError: what is named is not prepared.
    """
    return _with_images(_with_table(tree), need_images)


def prepared_table(space: str) -> Path:
    """Names the file in which `bonas data prepare` puts the table of a space or data set."""
    return home() / "data" / f"{space}.parquet"


def _with_table(tree: dict[str, Any]) -> dict[str, Any]:
    """Names the table in full, so that a search can be resumed from anywhere.

    `evaluator.table` may be the bare name of a prepared table, such as nasbench101-surrogate; where it is empty, the
    prepared one of the space is taken.
    """
    evaluator = tree.get("evaluator")
    if not isinstance(evaluator, dict) or evaluator.get("kind", "table") != "table":
        return tree
    table = evaluator.get("table")
    prepared = prepared_table(str(tree.get("space", "nasbench201")))
    if table is None and prepared.is_file():
        return {**tree, "evaluator": {**evaluator, "table": str(prepared)}}
    if isinstance(table, str) and _BARE_NAME.fullmatch(table) and not Path(table).is_file():
        prepared = prepared_table(table)
        if not prepared.is_file():
            raise SettingsError(
                f"table `{table}` is not prepared; run `bonas data prepare {table}`, or give a file with "
                "--set evaluator.table=PATH"
            )
        return {**tree, "evaluator": {**evaluator, "table": str(prepared)}}
    if isinstance(table, str):
        return {**tree, "evaluator": {**evaluator, "table": str(Path(table).expanduser().absolute())}}
    return tree


def _with_images(tree: dict[str, Any], needed: bool) -> dict[str, Any]:
    """Names the prepared images of a training in full, where `evaluator.data` is such a data set."""
    evaluator = tree.get("evaluator")
    if not isinstance(evaluator, dict) or evaluator.get("kind") != "training":
        return tree
    name = evaluator.get("data")
    if not isinstance(name, str) or name in names("data") or ":" in name:
        return tree
    path = Path(name).expanduser().absolute()
    if _BARE_NAME.fullmatch(name):
        path = prepared_table(name).with_suffix(SUFFIX)
        if needed and not path.is_file() and (Path(str(data.__file__)).parent / name / "prepare.py").is_file():
            raise SettingsError(
                f"data `{name}` is not prepared; run `bonas data prepare {name} --source PATH` (data/{name}/README.md)"
            )
    return {**tree, "evaluator": {**evaluator, "data": str(path)}} if path.suffix == SUFFIX and path.is_file() else tree


def _find(source: str) -> Path:
    known = {preset.name: preset.path for preset in presets()}
    if source in known:
        return known[source]
    path = Path(source).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise SettingsError(f"settings file `{source}` does not exist; `bonas presets` lists what ships")
        return path
    close = get_close_matches(source, known, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    raise SettingsError(f"preset `{source}` is unknown; {hint}use one of {', '.join(known)}, or a .yaml file")


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise SettingsError(f"settings file `{path}` is larger than 1 MiB; settings are a few lines of YAML")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"settings file `{path}` cannot be read: {error.strerror}; check its permissions") from None
    except UnicodeDecodeError:
        raise SettingsError(f"settings file `{path}` is not UTF-8 text; save it as UTF-8") from None
