"""The folder of final trainings, in a store beside the searches: cells that are trained one by one under one recipe.

<store>/<id>/training.json          settings, the cells and where they come from, versions: written once
             state.json             running, finished, paused or failed
             cells/N/curve.json     figures of every epoch so far
                     checkpoints/   training state, gone once the training is recorded
                     network.safetensors, card.md, cell.png, curve.png
                     result.json    written last: the training of the cell is finished
             prefect.json           the flow run of the last process
             .lock                  held by the one writer
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bonas_core.errors import StoreError, first_line
from bonas_core.storage import Location, check_id, is_locked, read_json, refuse_links, store_folder, write_whole
from tasks.home.workspace import SEARCH_FILE, STATE_FILE, TRAINING_FILE, default_store

SCHEMA = 1
CARD_FILE = "card.md"


@dataclass(frozen=True)
class Chosen:
    """A cell that is to be trained."""

    cell: str
    """As its space prints it, or a published one as `format_cells` does."""
    origin: str
    """Where it comes from, for people."""


@dataclass(frozen=True)
class Plan:
    """What was fixed when final trainings were started."""

    uid: str
    """Their own name in MLflow."""
    request: str
    """Which cells were asked for."""
    settings: dict[str, Any]
    fingerprint: str
    """Of data and recipe."""
    chosen: list[Chosen]
    versions: dict[str, str]
    created_at: str
    schema: int = SCHEMA


@dataclass(frozen=True)
class Result:
    """How the training of a cell ended."""

    objective: float
    metrics: dict[str, float]
    epochs: int
    params: int
    mult_adds: int
    cost_s: float
    """Seconds, over all processes that took part one after the other."""
    device: str
    model: str
    """Name of the registered model."""


_T = TypeVar("_T")
_PLAN, _RESULT = TypeAdapter(Plan), TypeAdapter(Result)
_CURVE = TypeAdapter(dict[int, dict[str, float]])


def _read(kind: TypeAdapter[_T], path: Location) -> _T:
    """What a JSON file holds; ValueError says in a line what it should and does not."""
    try:
        return kind.validate_python(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


@dataclass(frozen=True)
class CellFolder:
    """The folder of the training of one cell."""

    path: Location

    @property
    def checkpoints(self) -> Location:
        """Training state."""
        return self.path / "checkpoints"

    def curve(self) -> dict[int, dict[str, float]]:
        """As `read_curve`; empty also where it is damaged, which is no reason not to train on."""
        try:
            return self.read_curve()
        except StoreError:
            return {}

    def read_curve(self) -> dict[int, dict[str, float]]:
        """Figures by epoch, and under `cost_s` the seconds since the epoch before; empty where there are none.

        Raises:
            StoreError: the file is damaged.
        """
        path = self.path / "curve.json"
        try:
            return _read(_CURVE, path)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise StoreError(
                f"curve `{path}` is damaged ({first_line(error)[:200]}); restore or remove it, trainings do not need it"
            ) from None

    def write_curve(self, curve: Mapping[int, Mapping[str, float]]) -> None:
        """Writes the figures by epoch."""
        write_whole(self.path / "curve.json", json.dumps(curve).encode())

    def result(self) -> Result | None:
        """How the training ended, or None where it has not: then it goes on.

        Raises:
            StoreError: the file is damaged; to train again what took days is for a person to decide.
        """
        path = self.path / "result.json"
        try:
            result = _read(_RESULT, path)
            if "test" not in result.metrics:
                raise ValueError("no accuracy on test images")
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(
                f"result `{path}` is damaged ({first_line(error)[:200]}); restore it, or remove it and the cell is "
                "trained again"
            ) from None
        return result

    def write_result(self, result: Result) -> None:
        """Says how the training ended; everything else is there by then."""
        write_whole(self.path / "result.json", json.dumps(asdict(result), indent=2).encode())


@dataclass(frozen=True)
class TrainingFolder:
    """The folder of final trainings."""

    path: Location

    @property
    def id(self) -> str:
        """Their id."""
        return self.path.name

    def cell(self, place: int) -> CellFolder:
        """The folder of a cell, the first being 1."""
        return CellFolder(self.path / "cells" / str(place))

    def exists(self) -> bool:
        """Whether trainings have been started here."""
        return (self.path / TRAINING_FILE).is_file()

    def read(self) -> Plan:
        """What was fixed when they were started.

        Raises:
            StoreError: there are none, or the file is damaged.
        """
        try:
            refuse_links(self.path)
            plan = _read(_PLAN, self.path / TRAINING_FILE)
        except FileNotFoundError:
            raise StoreError(
                f"training `{self.id}` is not in `{self.path.parent}`; start it with `bonas train`"
            ) from None
        except ValueError as error:
            reason = first_line(error)[:200]
            raise StoreError(
                f"training file `{self.path / TRAINING_FILE}` is damaged ({reason}); restore it or start another"
            ) from None
        if plan.schema != SCHEMA:
            raise StoreError(f"training `{self.id}` has schema {plan.schema}, this release reads {SCHEMA}; upgrade")
        if not plan.chosen:
            raise StoreError(
                f"training file `{self.path / TRAINING_FILE}` is damaged (no cells); restore it or start another"
            )
        return plan

    def write(self, plan: Plan) -> None:
        """Writes what they were started with."""
        write_whole(self.path / TRAINING_FILE, json.dumps(asdict(plan), indent=2).encode())

    def write_state(self, state: str, reason: str = "") -> None:
        """Says where they stand."""
        write_whole(self.path / STATE_FILE, json.dumps({"state": state, "reason": reason}).encode())

    def state(self) -> str:
        """`running`, `finished`, `failed`, `paused` (stopped in good order), or `interrupted` (the process died)."""
        if is_locked(self.path):
            return "running"
        try:
            state = str(read_json(self.path / STATE_FILE)["state"])
        except (OSError, ValueError, KeyError, StoreError):
            return "interrupted"
        return "interrupted" if state == "running" else state


def training_folder(training_id: str, store: str | None = None) -> TrainingFolder:
    """The folder of final trainings by their id, in a store or the default one; it need not exist.

    Raises:
        StoreError: the id or the store is not acceptable, or a search has this id.
    """
    folder = store_folder(store) if store else default_store()
    path = folder / check_id(training_id)
    if path.is_symlink():
        raise StoreError(f"training `{training_id}` is a symbolic link; trainings are folders of the store itself")
    if (path / SEARCH_FILE).is_file():
        raise StoreError(f"training `{training_id}`: a search has this id; choose another with --id")
    return TrainingFolder(path)


def trainings(store: Location) -> list[TrainingFolder]:
    """All final trainings of a store, by id."""
    folders = [TrainingFolder(path) for path in sorted(store.iterdir())] if store.is_dir() else []
    return [
        folder
        for folder in folders
        if folder.exists() and not folder.path.is_symlink() and not (folder.path / SEARCH_FILE).is_file()
    ]


def model_name(data: str, space: str) -> str:
    """Name of the registered model of networks that were trained on a data set and have cells of a space."""
    parts = (data.partition(" (")[0], space)
    return "-".join(["bonas", *(re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-").lower() for part in parts)])


def model_alias(training_id: str, place: int) -> str:
    """Alias of the version that a training registers."""
    return f"{re.sub('[^A-Za-z0-9_-]', '-', training_id)}-{place}"
