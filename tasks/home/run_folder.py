"""Common ground of the folders of searches and of final trainings: how a run was started, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, StrictInt, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from bonas_core.errors import StoreError, first_line
from bonas_core.storage import Location, check_id, is_locked, read_json, refuse_links, store_folder, write_whole
from tasks.home.environment import default_store

TRAINING_FILE = "training.json"
"""Name of the file that says how final trainings were started: its folder is theirs and no search's."""
STATE_FILE = "state.json"
SCHEMA = 1

_T = TypeVar("_T")


@with_config(ConfigDict(extra="allow"))
class Budget(TypedDict):
    """Budget of a search, of which only the number of trials is used before the settings are parsed."""

    trials: StrictInt


class State(TypedDict, total=False):
    """State in which the last process left a run."""

    state: str
    reason: str
    budget: Budget
    """Budget that a search worked to."""


class _Versioned(TypedDict):
    schema: int


_STATE, _VERSIONED = TypeAdapter(State), TypeAdapter(_Versioned)


@dataclass(frozen=True)
class RunFolder:
    """Folder of a run, on the disk or in S3, which one process at a time writes to."""

    kind: ClassVar[str]
    """Word for such a run in messages."""
    file: ClassVar[str]
    """Name of the file that says how the run was started."""

    path: Location

    @property
    def id(self) -> str:
        """Id of the run."""
        return self.path.name

    def exists(self) -> bool:
        """Tells whether a run has been started here."""
        return (self.path / self.file).is_file()

    def read_start(self, adapter: TypeAdapter[_T]) -> _T:
        """Reads how the run was started.

        Raises:
            StoreError: the file is damaged or of another release, or there is a link in the folder.
        """
        path = self.path / self.file
        try:
            refuse_links(self.path)
            stored = read_json(path)
            schema = validated(_VERSIONED, stored)["schema"]
            if schema != SCHEMA:
                raise StoreError(f"{self.kind} `{self.id}` has schema {schema}, this release reads {SCHEMA}; upgrade")
            return validated(adapter, stored)
        except (OSError, ValueError) as error:
            reason = first_line(error)[:200]
            raise StoreError(f"{self.kind} file `{path}` is damaged ({reason}); restore it or start another") from None

    def write_start(self, content: Mapping[str, Any]) -> None:
        """Writes how the run was started."""
        write_whole(self.path / self.file, json.dumps({"schema": SCHEMA, **content}, indent=2).encode())

    def read_state(self) -> State:
        """Reads how the last process left the run; empty where none ran, or where the file is damaged."""
        try:
            return validated(_STATE, read_json(self.path / STATE_FILE))
        except (OSError, ValueError, StoreError):
            return {}

    def write_state(self, state: str, reason: str = "", budget: Mapping[str, Any] | None = None) -> None:
        """Writes where the run stands, and the budget that it works to where it has one."""
        content = {"state": state, "reason": reason, **({} if budget is None else {"budget": budget})}
        write_whole(self.path / STATE_FILE, json.dumps(content).encode())

    def state(self) -> str:
        """Tells where the run stands.

        Returns:
            `running`, `finished`, `failed`, `paused` (stopped in good order), or `interrupted` (its process died).
        """
        if is_locked(self.path):
            return "running"
        state = self.read_state().get("state", "interrupted")
        return "interrupted" if state == "running" else state


def validated(adapter: TypeAdapter[_T], content: object) -> _T:
    """Returns what was read from JSON as the type that it should have.

    Raises:
        ValueError: it has not; the message names the first fault.
    """
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place, message = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {message}" if place else message) from None


def run_path(kind: str, run_id: str, store: str | None) -> Location:
    """Returns the path of a run's folder by its id, in a store or the default one; it need not exist.

    Raises:
        StoreError: the id or the store is not acceptable.
    """
    path = (store_folder(store) if store else default_store()) / check_id(run_id)
    if path.is_symlink():
        raise StoreError(f"{kind} `{run_id}` is a symbolic link; a store holds folders of its own, remove it")
    return path


def run_paths(store: Location) -> list[Location]:
    """Lists everything in a store that may be the folder of a run, by id."""
    entries: Iterable[Location] = store.iterdir() if store.is_dir() else ()
    return sorted((path for path in entries if not path.is_symlink()), key=lambda path: path.name)
