"""Start and continuation of a search: what is checked before anything is evaluated."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from bonas_core.errors import SettingsError
from bonas_core.problem import Problem, build
from bonas_core.settings import Settings, parse_settings, with_override
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
from flows.running.continuing import check_continued
from flows.running.presets import located
from tasks.dispatch.slots import slots_for
from tasks.home.environment import home
from tasks.home.run_folder import TRAINING_FILE
from tasks.home.search_folder import Manifest, SearchFolder, search_folder

_PACKAGES = ("bonas", "torch", "torch-geometric", "numpy", "prefect", "mlflow", "pyarrow")


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
    """Returns the settings with the predictor that trainings start from as a file.

    That is the search's own copy, once it has one.

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
    """Fetches a registered predictor as a local file, named by its version."""
    from tasks.mlflow_store.registry import load_registered

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


def stored_settings(search_id: str, store: str | None, trials: int | None, overrides: Sequence[str] = ()) -> Settings:
    """Reads the settings to continue a search with: its own, with what is asked for on top.

    Args:
        search_id: names the search.
        store: where it is; by default the default store.
        trials: of a larger budget.
        overrides: settings as `name=value`; which of them may change is for `check_openable` to say.

    Raises:
        InputError: there is no such search, or a setting is wrong.
    """
    folder = search_folder(search_id, store)
    tree = folder.read()["settings"]
    budget = {**tree["budget"], **folder.read_state().get("budget", {})}
    if trials is not None:
        budget["trials"] = trials
    # the store is where it was found: a search may have been moved or come from elsewhere
    continued: dict[str, Any] = {**tree, "budget": budget, "store": store}
    for assignment in overrides:
        continued = with_override(continued, assignment)
    return parse_settings(located(continued) if overrides else continued, search_id)


def manifest(problem: Problem, settings: Settings, uid: str, tracking: dict[str, str]) -> Manifest:
    """Describes a search that starts, as it is written down."""
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
    """Lists the versions of what decides results."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def new_uid() -> str:
    """Makes a name for a search that no other search has, in any store."""
    return uuid4().hex
