"""Starting a search and continuing one: what is checked before anything is evaluated."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from bonas_core.build import Problem, build
from bonas_core.errors import SettingsError
from bonas_core.settings import Settings, leaves, parse_settings
from bonas_core.storage import (
    Location,
    check_writable,
    is_locked,
    make_local_folder,
    read_whole,
    refuse_links,
    single_writer,
    store_folder,
    write_whole,
)
from bonas_core.storage.tensors import SUFFIX
from flows.running.backends import check_backend
from tasks.dispatch.slots import slots_for
from tasks.home.environment import home
from tasks.home.run_folder import TRAINING_FILE
from tasks.home.search_folder import Manifest, SearchFolder, search_folder

_FREE = ("budget", "store", "dispatch", "tracking")  # parts that do not decide which trials a search makes
_PACKAGES = ("bonas", "torch", "torch-geometric", "numpy", "prefect", "mlflow", "pyarrow")


def default_id(name: str, settings: Settings, overrides: bool) -> str:
    """An id that is the same whenever the same search is asked for, so that asking again continues it."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "search"
    if not overrides:
        return f"{name}-s{settings.seed}"
    tree = {part: value for part, value in settings.tree().items() if part not in _FREE}
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:6]
    return f"{name}-s{settings.seed}-{digest}"


def check_openable(folder: SearchFolder, settings: Settings) -> Problem:
    """Builds the problem, and checks that a search can be started or continued in the folder; writes nothing.

    Raises:
        InputError: a setting, the table, the store or an earlier search of this id stands in the way.
    """
    if (folder.path / TRAINING_FILE).is_file():
        raise SettingsError(f"search `{folder.id}`: a training has this id; choose another with --id")
    check_backend(settings.dispatch, folder.path)
    if settings.dispatch.backend in ("inline", "thread", "process"):
        slots_for(settings)  # of this machine
    check_writable(folder.path)
    if folder.path.is_dir():
        refuse_links(folder.path)
    stored = folder.read() if folder.exists() else None
    if stored is not None:
        check_continued(f"search `{folder.id}`", stored["settings"], settings)
    problem = build(with_local_warm_start(folder, settings))
    if stored is not None and stored["fingerprint"] != problem.evaluator.fingerprint:
        raise SettingsError(
            f"search `{folder.id}`: the evaluator's data or recipe is not what the search was started with; "
            "restore it, or start another search with --id"
        )
    return problem


def with_local_warm_start(folder: SearchFolder, settings: Settings) -> Settings:
    """The settings with the predictor that trainings start from as a file: the search's own copy, once it has one.

    Raises:
        ModelError: a predictor that is named for a new search cannot be had.
    """
    source = _warm_start(settings)
    if source is None:
        return settings
    assert settings.predictor is not None
    path: Location = folder.warm_start
    if not path.is_file():
        path = fetched_model(source, settings.tracking.uri) if source.startswith("models:/") else store_folder(source)
    predictor = settings.predictor.model_copy(update={"warm_start": str(path)})
    return settings.model_copy(update={"predictor": predictor})


def keep_warm_start(folder: SearchFolder, problem: Problem) -> None:
    """Copies the predictor that trainings start from into the search: an alias may move, and a file go."""
    source = _warm_start(problem.settings)
    if source is not None and not folder.warm_start.is_file():
        write_whole(folder.warm_start, read_whole(store_folder(source), 1 << 30))


def _warm_start(settings: Settings) -> str | None:
    """The predictor that trainings start from, where the method has a predictor and one is named."""
    return None if settings.predictor is None else settings.predictor.warm_start


def fetched_model(uri: str, tracking_uri: str | None) -> Path:
    """A registered predictor as a local file, named by its version."""
    from tasks.mlflow_store.tracking import load_registered

    model = load_registered(tracking_uri, uri)
    path = make_local_folder(home() / "models") / f"{model.fitted.version}{SUFFIX}"
    if not path.is_file():
        model.write(path)
    return path


def check_unlocked(folder: Location) -> None:
    """Raises SearchLockedError, naming the holder, if another process is writing to a search or training."""
    if is_locked(folder):
        with single_writer(folder):
            pass  # it has just ended


def stored_settings(search_id: str, store: str | None, trials: int | None) -> Settings:
    """The settings to continue a search with: its own, with a larger budget where one is asked for.

    Raises:
        InputError: there is no such search, or the budget is smaller than before.
    """
    folder = search_folder(search_id, store)
    tree = folder.read()["settings"]
    budget = {**tree["budget"], **folder.read_state().get("budget", {})}
    if trials is not None:
        budget["trials"] = trials
    # the store is where it was found: a search may have been moved or come from elsewhere
    return parse_settings({**tree, "budget": budget, "store": store}, search_id)


def manifest(problem: Problem, settings: Settings, uid: str, tracking: dict[str, str]) -> Manifest:
    """What is written down when a search starts."""
    return {
        "uid": uid,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "space": settings.space,
        "seed": settings.seed,
        "objective": {
            "name": problem.objective.name,
            "unit": problem.objective.unit,
            "direction": problem.objective.direction,
        },
        "fingerprint": problem.evaluator.fingerprint,
        "settings": settings.tree(),
        "versions": versions(),
        "mlflow": tracking,
    }


def versions() -> dict[str, str]:
    """Versions of what decides results."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def new_uid() -> str:
    """A name for a search that no other search has, in any store."""
    return uuid4().hex


def check_continued(what: str, before: dict[str, Any], settings: Settings) -> None:
    """Raises SettingsError unless settings are those that a search or training was started with, or a larger budget."""
    stored = dict(leaves(parse_settings(before, what).tree()))  # a setting that is newer has its default
    given = dict(leaves(settings.tree()))
    for name in sorted(stored.keys() | given.keys()):
        if stored.get(name) == given.get(name) or name in ("store", "evaluator.table"):
            continue  # a table that has moved is known by its fingerprint
        if name in ("budget.trials", "budget.hours") and _larger(given.get(name), stored.get(name)):
            continue
        remedy = "give a larger one" if name.startswith("budget") else f"keep it at {stored.get(name)}"
        raise SettingsError(
            f"{what} was started with {name} = {stored.get(name)}, not {given.get(name)}; "
            f"{remedy}, or start another with --id"
        )


def _larger(given: Any, stored: Any) -> bool:
    return given is None or (stored is not None and given >= stored)
