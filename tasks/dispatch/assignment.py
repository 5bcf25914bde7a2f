"""A trial that is given to a trainer in another process: everything that the two exchange, as files.

    <search>/dispatch/<trial>/order.json     settings and the trial, written by the search
                              status.json    what is happening to it, for people and for recovery
                              result.json    how it ended, written by the trainer; the search records it
                              .lock          held by whoever trains it; freed by the operating system

Files rather than messages, so that either side may die: a search that is started again finds the result of a trainer
that outlived it, and a second trainer of the same trial waits for the first and then finds its result. The folder is
removed once the trial is recorded.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import lock_descriptor
from pydantic import TypeAdapter, ValidationError

from bonas_core.errors import StoreError
from bonas_core.settings import Settings, parse_settings
from bonas_core.storage import make_local_folder, write_whole
from bonas_core.trials import Trial
from tasks.home.search_folder import DISPATCH_FOLDER

_TRIAL = TypeAdapter(Trial)
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Assignment:
    """The folder of one assigned trial."""

    folder: Path

    @classmethod
    def of(cls, search: Path, trial: int) -> Assignment:
        """Names the assignment of a trial of the search in a folder; it need not exist."""
        return cls(search / DISPATCH_FOLDER / str(trial))

    @property
    def search(self) -> Path:
        """Folder of the search."""
        return self.folder.parents[1]

    @property
    def number(self) -> int:
        """Number of the trial."""
        return int(self.folder.name)

    def write_order(self, settings: Settings, trial: Trial) -> None:
        """Says what is to be trained."""
        make_local_folder(self.folder)
        order = {"settings": settings.tree(), "trial": _plain(trial)}
        write_whole(self.folder / "order.json", json.dumps(order).encode())

    def read_order(self) -> tuple[Settings, Trial]:
        """Reads settings and trial.

        Raises:
            StoreError: there is no such order.
        """
        try:
            order = json.loads((self.folder / "order.json").read_text())
            trial = _TRIAL.validate_python(order["trial"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"trial {self.folder.name} of search `{self.search.name}` is not assigned ({error}); "
                "trainers are started by a search, start that"
            ) from None
        return parse_settings(order["settings"], self.search.name), trial

    def write_result(self, trial: Trial) -> None:
        """Says how the trial ended."""
        write_whole(self.folder / "result.json", json.dumps(_plain(trial)).encode())

    def read_result(self) -> Trial | None:
        """Reads how the trial ended, or None if it has not."""
        try:
            return _TRIAL.validate_python(json.loads((self.folder / "result.json").read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError):
            return None  # damaged: then it is trained again

    def write_status(self, state: str, **details: Any) -> None:
        """Says what is happening: `waiting` with a `reason`, or `training`; never worth an error, nor a sync."""
        status = {
            "state": state,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            **details,
        }
        temporary = self.folder / f".status.{os.getpid()}.tmp"
        with suppress(OSError):
            temporary.write_text(json.dumps(status))
            os.replace(temporary, self.folder / "status.json")

    def read_status(self) -> dict[str, Any]:
        """Reads what was last said of it; empty if nothing was."""
        try:
            return dict(json.loads((self.folder / "status.json").read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    @contextmanager
    def trained_here(self, raise_if_stopped: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Holds the right to train the trial, waiting for a process that has it.

        Args:
            raise_if_stopped: called while it waits; may raise to give up.
        """
        with open(make_local_folder(self.folder) / ".lock", "w") as file:
            while not lock_descriptor(file.fileno(), blocking=False):
                raise_if_stopped()
                time.sleep(_LOOK_EVERY_S)
            yield

    def is_trained(self) -> bool:
        """Tells whether a live process trains it."""
        try:
            with open(self.folder / ".lock", "r+") as file:
                return not lock_descriptor(file.fileno(), blocking=False)
        except OSError:
            return False


def _plain(trial: Trial) -> dict[str, Any]:
    values = {**asdict(trial), "metrics": dict(trial.metrics), "state": str(trial.state)}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
