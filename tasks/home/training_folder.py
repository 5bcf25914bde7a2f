"""Folder of final trainings, in a store beside the searches: cells that are trained one by one under one recipe.

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
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter

from bonas_core.errors import StoreError, first_line
from bonas_core.storage import Location, read_json, write_whole
from tasks.home.run_folder import TRAINING_FILE, RunFolder, run_path, run_paths, validated
from tasks.home.search_folder import SearchFolder

CARD_FILE = "card.md"


@dataclass(frozen=True)
class Chosen:
    """Cell that is to be trained."""

    cell: str
    """Text of the cell as its space prints it, or of a published one as `format_cells` does."""
    origin: str
    """Origin of the cell, for people."""


@dataclass(frozen=True)
class Plan:
    """Facts that were fixed when final trainings were started."""

    uid: str
    """Name of the trainings in MLflow."""
    request: str
    """Description of the cells that were asked for."""
    settings: dict[str, Any]
    fingerprint: str
    """Fingerprint of data and recipe."""
    chosen: Annotated[list[Chosen], Field(min_length=1)]
    versions: dict[str, str]
    created_at: str


@dataclass(frozen=True)
class Result:
    """Figures with which the training of a cell ended."""

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


_PLAN, _RESULT = TypeAdapter(Plan), TypeAdapter(Result)
_CURVE = TypeAdapter(dict[int, dict[str, float]])


@dataclass(frozen=True)
class CellFolder:
    """Folder of the training of one cell."""

    path: Location

    @property
    def checkpoints(self) -> Location:
        """Folder of the training state."""
        return self.path / "checkpoints"

    def curve(self) -> dict[int, dict[str, float]]:
        """Reads the figures like `read_curve`; empty also where they are damaged: that stops no training."""
        try:
            return self.read_curve()
        except StoreError:
            return {}

    def read_curve(self) -> dict[int, dict[str, float]]:
        """Reads the figures by epoch, and as `cost_s` the seconds since the epoch before; empty where there are none.

        Raises:
            StoreError: the file is damaged.
        """
        path = self.path / "curve.json"
        try:
            return validated(_CURVE, read_json(path))
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
        """Reads how the training ended, or None where it has not: then it goes on.

        Raises:
            StoreError: the file is damaged; to train again what took days is for a person to decide.
        """
        path = self.path / "result.json"
        try:
            result = validated(_RESULT, read_json(path))
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
        """Writes how the training ended; everything else is there by then."""
        write_whole(self.path / "result.json", json.dumps(asdict(result), indent=2).encode())


@dataclass(frozen=True)
class TrainingFolder(RunFolder):
    """Folder of final trainings."""

    kind: ClassVar[str] = "training"
    file: ClassVar[str] = TRAINING_FILE

    def cell(self, place: int) -> CellFolder:
        """Returns the folder of a cell, the first being 1."""
        return CellFolder(self.path / "cells" / str(place))

    def read(self) -> Plan:
        """Reads what was fixed when they were started.

        Raises:
            StoreError: there are none, or the file is damaged.
        """
        if not self.exists():
            raise StoreError(f"training `{self.id}` is not in `{self.path.parent}`; start it with `bonas train`")
        return self.read_start(_PLAN)

    def write(self, plan: Plan) -> None:
        """Writes what they were started with."""
        self.write_start(asdict(plan))


def training_folder(training_id: str, store: str | None = None) -> TrainingFolder:
    """Returns the folder of final trainings by their id, in a store or the default one; it need not exist.

    Raises:
        StoreError: the id or the store is not acceptable, or a search has this id.
    """
    path = run_path(TrainingFolder.kind, training_id, store)
    if SearchFolder(path).exists():
        raise StoreError(f"training `{training_id}`: a search has this id; choose another with --id")
    return TrainingFolder(path)


def trainings(store: Location) -> list[TrainingFolder]:
    """Lists the final trainings of a store, by id."""
    folders = [TrainingFolder(path) for path in run_paths(store) if not SearchFolder(path).exists()]
    return [folder for folder in folders if folder.exists()]


def model_name(data: str, space: str) -> str:
    """Returns the name of the registered model of networks with cells of a space that were trained on a data set."""
    parts = (data.partition(" (")[0], space)
    return "-".join(["bonas", *(re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-").lower() for part in parts)])


def model_alias(training_id: str, place: int) -> str:
    """Returns the alias of the version that a training registers."""
    return f"{re.sub('[^A-Za-z0-9_-]', '-', training_id)}-{place}"
