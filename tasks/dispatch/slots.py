"""Slots of this machine: one trial a GPU, or several GPUs, or a CPU share on a machine without GPUs.

A slot is a file with an advisory lock, in a folder that all searches of a home on this machine share. The operating
system frees the lock when its holder dies, however it dies, so a killed holder's slot is free at once. (Prefect's
concurrency limits free it when a lease has run out: 69 seconds with the shortest sensible lease, and they need the
server.) The file names its holder, so that whoever waits can say for what.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import lock_descriptor

from bonas_core.errors import SettingsError, StoreError
from bonas_core.settings import Settings, TrainingSettings
from bonas_core.storage import make_local_folder
from tasks.home.environment import home

_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Slot:
    """The right to train one trial at a time on a part of this machine."""

    name: str
    device: str
    """A torch device, for a process that sees all GPUs."""
    gpu: str | None = None
    """Value of CUDA_VISIBLE_DEVICES in it: the name of a GPU, or of several."""
    parts: tuple[str, ...] = ()
    """Slots of one GPU each that it takes, where it has several."""

    def environment(self, threads: int) -> dict[str, str]:
        """Makes the variables of a process in this slot: it sees the slot's GPUs only, and uses `threads` CPUs."""
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        return {**limits, "CUDA_VISIBLE_DEVICES": self.gpu or ""}


def slots_folder() -> Path:
    """Names the folder of this machine's slots: in the home folder, or what BONAS_SLOTS names to share it."""
    named = os.environ.get("BONAS_SLOTS")
    return Path(named).expanduser() if named else home() / "slots" / socket.gethostname()


def slots_for(settings: Settings) -> list[Slot]:
    """Lists the slots of this machine that trials of a search may be trained in.

    One for each GPU, or for as many as a training has processes; without GPUs as many as there are CPUs for a
    training's threads, and no fewer than `dispatch.slots`.

    Raises:
        SettingsError: a training has more processes than there are GPUs.
    """
    processes = settings.evaluator.processes if isinstance(settings.evaluator, TrainingSettings) else 1
    names = [] if settings.dispatch.device == "cpu" else gpus()
    if settings.dispatch.device == "auto" and settings.evaluator.kind == "table":
        names = []
    if 0 < len(names) < processes:
        raise SettingsError(
            f"evaluator.processes: each of {processes} needs a GPU, and there are {len(names)}; "
            f"set it to {len(names)}, or dispatch.device to cpu"
        )
    if names:
        single = [
            Slot("gpu-" + re.sub(r"[^A-Za-z0-9-]", "-", name), f"cuda:{place}", name)
            for place, name in enumerate(names)
        ]
        return (
            single if processes == 1 else [_joined(group) for group in zip(*[iter(single)] * processes, strict=False)]
        )
    count = max(settings.dispatch.slots, (os.cpu_count() or 1) // (processes * threads_of(settings)))
    return [Slot(f"cpu-{number}", "cpu") for number in range(count)]


def _joined(slots: Sequence[Slot]) -> Slot:
    names = tuple(slot.name for slot in slots)
    gpus = ",".join(str(slot.gpu) for slot in slots)
    return Slot("+".join(names), slots[0].device, gpus, names)


def threads_of(settings: Settings) -> int:
    """Counts the CPU threads of one training, or of each of its processes."""
    return settings.evaluator.threads if isinstance(settings.evaluator, TrainingSettings) else 1


def gpus() -> list[str]:
    """Lists the GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return _installed_gpus()
    names = [name.strip() for name in named.split(",")]
    return [name for name in names if name and name != "-1"]


@cache
def _installed_gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU"))]


@contextmanager
def taken(
    slots: Sequence[Slot],
    holder: str,
    on_wait: Callable[[str], None] = lambda reason: None,
    raise_if_stopped: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Slot, tuple[int, ...]]]:
    """Takes the first free slot, waiting for one where none is.

    Args:
        slots: what may be taken.
        holder: who takes it, for those who wait.
        on_wait: called with the reason whenever it changes, while there is none.
        raise_if_stopped: called while there is none; may raise to give up.

    Yields:
        the slot, and the file descriptors that hold it: a process that inherits them keeps the slot too.
    """
    folder = make_local_folder(slots_folder())
    last_reason = ""
    while True:
        for slot in slots:
            descriptors = _try_all([folder / f"{name}.lock" for name in slot.parts or (slot.name,)])
            if descriptors:
                break
        else:
            raise_if_stopped()
            reason = _why(folder, slots)
            if reason != last_reason:
                on_wait(reason)
                last_reason = reason
            time.sleep(_LOOK_EVERY_S)
            continue
        break
    try:
        content = json.dumps({"pid": os.getpid(), "holder": holder}).encode()
        for descriptor in descriptors:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content, 0)
        yield slot, descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _try_all(paths: Sequence[Path]) -> tuple[int, ...]:
    """Locks all of these files, or none."""
    locked: list[int] = []
    for path in paths:
        descriptor = _try(path)
        if descriptor is None:
            for one in locked:
                os.close(one)
            return ()
        locked.append(descriptor)
    return tuple(locked)


@contextmanager
def place_here(settings: Settings, holder: str, raise_if_stopped: Callable[[], None] = lambda: None) -> Iterator[Slot]:
    """Takes a slot for a training in this process.

    Where there are no GPUs it need not wait, since the CPU of this process is its search's own.

    Args:
        settings: of the search.
        holder: who takes it, for those who wait.
        raise_if_stopped: called while there is none; may raise to give up.

    Yields:
        the slot.
    """
    slots = slots_for(settings)
    if slots[0].gpu is None:
        yield slots[0]
        return
    with taken(slots, holder, raise_if_stopped=raise_if_stopped) as (slot, _):
        yield slot


def _try(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if lock_descriptor(descriptor, blocking=False):
            return descriptor
    except OSError as error:
        os.close(descriptor)
        raise StoreError(
            f"`{path.parent}`: its file system locks no files ({error.strerror}); put BONAS_HOME on one that does"
        ) from None
    os.close(descriptor)
    return None


def _why(folder: Path, slots: Sequence[Slot]) -> str:
    names = [name for slot in slots for name in slot.parts or (slot.name,)]
    holders = [f"{name} ({_holder(folder / f'{name}.lock')})" for name in names[:4]]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"for a slot of {socket.gethostname()}: all are taken: {', '.join(holders)}{more}"


def _holder(path: Path) -> str:
    try:
        holder: dict[str, Any] = json.loads(path.read_text())
        return f"{holder['holder']}, process {holder['pid']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "taken a moment ago"
