"""What a sampler has learnt at one point of a search, also as a file: a search that goes on need not learn it again.

The file is safetensors, as predictors are; nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from bonas_core.errors import ModelError, first_line
from bonas_core.methods.samplers.base import Learnt
from bonas_core.storage import Location, make_folder, remove_file
from bonas_core.storage.tensors import SUFFIX, read_tensors, write_tensors

FORMAT = 1
FOLDER = "samplers"
"""Where a search keeps the states of its sampler."""


@dataclass(frozen=True)
class SamplerState:
    """What a sampler has learnt from the first `seen` trials."""

    version: str
    """Digest of the settings, the seed and those trials: equal versions are equal states."""
    seen: int
    learnt: Learnt

    def write(self, path: Location) -> None:
        """Writes the file, whole or not at all."""
        described = {"format": FORMAT, "version": self.version, "seen": self.seen}
        write_tensors(path, described, self.learnt)


def read_state(path: Location) -> SamplerState:
    """Reads a file that `SamplerState.write` wrote.

    Raises:
        ModelError: the file is missing, damaged, or something else.
    """
    try:
        described, learnt = read_tensors(path)
        if described["format"] != FORMAT:
            raise ValueError(f"its format is {described['format']}, this release reads {FORMAT}")
        return SamplerState(str(described["version"]), int(described["seen"]), learnt)
    except (OSError, KeyError, ValueError, TypeError) as error:
        reason = first_line(error)
        raise ModelError(
            f"`{path}` is not the state of a sampler ({reason}); remove it, and it is made again"
        ) from None


def latest_state(folder: Location, wanted: Callable[[SamplerState], bool]) -> SamplerState | None:
    """The latest state that a search's folder keeps and that is wanted; damaged files are passed over.

    Args:
        folder: of the search.
        wanted: whether a state belongs to the trials at hand.
    """
    paths: list[Location] = list((folder / FOLDER).glob(f"*{SUFFIX}"))
    for path in sorted(paths, key=lambda path: path.name, reverse=True):
        with suppress(ModelError):  # it can be had again
            stored = read_state(path)
            if wanted(stored):
                return stored
    return None


def kept_state(folder: Location, state: SamplerState) -> SamplerState:
    """Stores a state in a search's folder, and returns it.

    Two files stay: this one, and the one before it, should this one turn out to be damaged.
    """
    make_folder(folder / FOLDER)
    path = folder / FOLDER / f"{state.seen:06d}-{state.version}{SUFFIX}"
    state.write(path)
    others: list[Location] = [other for other in (folder / FOLDER).glob(f"*{SUFFIX}") if other.name != path.name]
    before = max((other.name for other in others if other.name < path.name), default="")
    for other in others:
        if other.name != before:
            remove_file(other)
    return state
