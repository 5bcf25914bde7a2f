"""Care for a store: check what is in it, merge the parts of histories, hand histories to other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa

from bonas_core.errors import BonasError, InputError, StoreError
from bonas_core.image_training.checkpoint import CHECKPOINT, last_epoch
from bonas_core.image_training.trained import FILE_NAME as NETWORK_FILE
from bonas_core.image_training.trained import read_trained
from bonas_core.methods.bonas.model import FILE_NAME, read_model
from bonas_core.methods.samplers.state import read_state
from bonas_core.settings import parse_settings
from bonas_core.storage import (
    Location,
    check_writable,
    is_locked,
    local_folder,
    remove_unfinished,
    single_writer,
    store_folder,
    table_bytes,
    write_whole,
)
from bonas_core.storage.tensors import SUFFIX
from bonas_core.trials import TrialState
from bonas_core.trials.history import SCHEMA, TrialHistory, read_part
from tasks.home.environment import default_store
from tasks.home.search_folder import SearchFolder, search_folder, searches
from tasks.home.training_folder import CellFolder, TrainingFolder, training_folder, trainings

FORMATS = (".csv", ".parquet", ".json")


@dataclass
class Checked:
    """Contents of a search, and what is wrong with it."""

    id: str
    running: bool = False
    trials: int = 0
    finished: int = 0
    parts: int = 0
    predictors: int = 0
    set_aside: list[str] = field(default_factory=list)
    """Damaged parts that were set aside: their trials have been done again, the files may go."""
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """Converts it to what JSON can hold."""
        return asdict(self)


@dataclass
class CheckedTraining:
    """Contents of final trainings, and what is wrong with it."""

    id: str
    running: bool = False
    cells: int = 0
    trained: int = 0
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """Converts it to what JSON can hold."""
        return asdict(self)


def check(ids: Sequence[str], store: str | None) -> tuple[list[Checked], list[CheckedTraining]]:
    """Reads everything that some searches and final trainings of a store, or all of them, consist of; changes nothing.

    Raises:
        StoreError: one that is named does not exist, or the store cannot be read.
    """
    if ids:
        named = [folder for name in ids if (folder := _training(name, store)) is not None]
        others = [name for name in ids if name not in {folder.id for folder in named}]
    else:
        named, others = trainings(_existing(store)), []
    searched = _chosen(others, store) if others or not ids else []
    return [_checked(folder) for folder in searched], [_checked_training(folder) for folder in named]


def _training(name: str, store: str | None) -> TrainingFolder | None:
    """Finds final trainings by their id; None where there are none of it."""
    if search_folder(name, store).exists():
        return None
    folder = training_folder(name, store)
    return folder if folder.exists() else None


def _checked_training(folder: TrainingFolder) -> CheckedTraining:
    found = CheckedTraining(folder.id)
    try:
        plan = folder.read()
        found.running = is_locked(folder.path)
        parse_settings(plan.settings, f"of training {folder.id}")
    except BonasError as error:
        found.faults.append(str(error))
        return found
    found.cells = len(plan.chosen)
    known = {str(place) for place in range(1, found.cells + 1)}
    for path in _entries(folder.path / "cells"):
        if path.name not in known:
            found.faults.append(f"training `{folder.id}`: `{path}` is of no cell that it trains; remove it")
    for place, chosen in enumerate(plan.chosen, start=1):
        own = folder.cell(place)
        _note(found, own.read_curve)
        try:
            result = own.result()
            if result is None:
                if not found.running:
                    _check_checkpoints(own, found)
                continue
            found.trained += 1
            network = read_trained(own.path / NETWORK_FILE)
            if network.cell != chosen.cell:
                found.faults.append(
                    f"training `{folder.id}`: the network of cell {place} has another cell than its plan; restore one "
                    "of them"
                )
        except BonasError as error:
            found.faults.append(str(error))
    return found


def _check_checkpoints(own: CellFolder, found: CheckedTraining) -> None:
    entries = _entries(own.checkpoints)
    for path in entries:
        if path.name != CHECKPOINT:
            found.faults.append(f"training `{found.id}`: `{path}` is no checkpoint of a training; remove it")
    checkpoint = own.checkpoints / CHECKPOINT
    if checkpoint in entries:
        with local_folder(own.checkpoints) as local:
            if not last_epoch(local / CHECKPOINT)[0]:
                found.faults.append(
                    f"checkpoint `{checkpoint}` is damaged; restore it, or the cell is trained from its first epoch"
                )


def _entries(folder: Location) -> list[Location]:
    """Lists what stands in a folder, but for what is being written."""
    entries: list[Location] = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in entries if not path.name.startswith(".")]


def _checked(folder: SearchFolder) -> Checked:
    found = Checked(folder.id)
    try:
        folder.read()
        found.running = is_locked(folder.path)
    except BonasError as error:
        found.faults.append(str(error))
        return found
    history = TrialHistory(folder.trials)
    tables = []
    for part in history.parts():
        found.parts += 1
        try:
            tables.append(read_part(part))
        except FileNotFoundError:
            found.parts -= 1  # merged by its writer in the meantime
        except StoreError as error:
            found.faults.append(str(error))
    found.set_aside = [path.name for path in folder.trials.glob("*.corrupt")]
    if tables and not found.running:
        _check_rows(pa.concat_tables(tables).to_pandas(), found)
    models: list[Location] = sorted(folder.predictors.glob(f"*/{FILE_NAME}"))
    for path in models:
        found.predictors += 1
        _note(found, partial(read_model, path))
    for path in folder.samplers.glob(f"*{SUFFIX}"):
        _note(found, partial(read_state, path))
    return found


def _note(found: Checked | CheckedTraining, read: Callable[[], object]) -> None:
    """Reads something, and notes the fault where that is damaged."""
    try:
        read()
    except BonasError as error:
        found.faults.append(str(error))


def _check_rows(rows: pd.DataFrame, found: Checked) -> None:
    ended = rows[rows["state"] != TrialState.PROPOSED]
    numbers = set(rows["trial"])
    found.trials, found.finished = len(numbers), ended["trial"].nunique()
    missing = sorted(set(range(max(numbers) + 1)) - numbers)
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
        found.faults.append(f"search `{found.id}`: trials {shown} are missing; resume it, they are done again")
    for trial, same in ended.groupby("trial"):
        if len(same) > 1 and len({(row.state, row.key, str(row.objective)) for row in same.itertuples()}) > 1:
            found.faults.append(
                f"search `{found.id}`: trial {trial} is recorded with different results; the first by name of part "
                "counts, remove the other"
            )
    named = rows.groupby("trial")["key"].nunique()
    for trial in named[named > 1].index:
        found.faults.append(
            f"search `{found.id}`: trial {trial} is recorded with different architectures; parts of another search "
            "are among its own, remove them"
        )


def compact(ids: Sequence[str], store: str | None) -> list[tuple[str, int, int]]:
    """Merges the parts of some searches, or of all that no process is writing to.

    Returns:
        id, parts before and parts after, for each.

    Raises:
        SearchLockedError: another process is writing to a search that is named.
        StoreError: a part is damaged, or the search cannot be written to.
    """
    done = []
    for folder in _chosen(ids, store):
        folder.read()
        if not ids and is_locked(folder.path):
            continue
        check_writable(folder.path)
        with single_writer(folder.path):
            remove_unfinished(folder.path)
            history = TrialHistory(folder.trials)
            before = len(history.parts())
            history.compact()
            done.append((folder.id, before, len(history.parts())))
    return done


def export(search_id: str, out: Path, store: str | None) -> int:
    """Writes the history of a search as CSV, Parquet or JSON, by the name of the file; returns the number of trials.

    In CSV every metric is a column of its own, `metrics.NAME`; in JSON a trial is an object; Parquet is as stored.

    Raises:
        InputError: the file's name has no such ending.
        StoreError: there is no such search, or the file cannot be written.
    """
    if out.suffix not in FORMATS:
        raise InputError(f"store export: `{out}` does not end in {', '.join(FORMATS)}; the ending names the format")
    folder = search_folder(search_id, store)
    folder.read()
    history = TrialHistory(folder.trials)
    out = out.expanduser().absolute()
    if out.suffix == ".parquet":
        table = history.table()
        write_whole(out, table_bytes(table.replace_schema_metadata(SCHEMA.metadata)))
        return len(table)
    frame = history.to_pandas()
    if out.suffix == ".csv":
        metrics = pd.DataFrame(frame["metrics"].tolist(), index=frame.index).add_prefix("metrics.")
        write_whole(out, pd.concat([frame.drop(columns="metrics"), metrics], axis=1).to_csv(index=False).encode())
    else:
        rows = [{**row, "metrics": dict(row["metrics"] or ())} for row in history.table().to_pylist()]
        write_whole(out, json.dumps(rows, indent=1, default=lambda time: time.isoformat()).encode())
    return len(frame)


def _chosen(ids: Sequence[str], store: str | None) -> list[SearchFolder]:
    if not ids:
        return searches(_existing(store))
    chosen = [search_folder(name, store) for name in ids]
    for folder in chosen:
        if not folder.exists():
            folder.read()  # which says what searches there are
    return chosen


def _existing(store: str | None) -> Location:
    where = store_folder(store) if store else default_store()
    if not where.is_dir():
        raise StoreError(f"store `{where}` does not exist; name one with --store")
    return where
