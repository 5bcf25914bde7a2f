"""What a sampler has learnt at one point of a search, also as a file: a search that goes on need not learn it again.

The file is safetensors, as predictors are; nothing is ever unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass

from bonas_core.errors import ModelError, first_line
from bonas_core.methods.samplers.base import Learnt
from bonas_core.storage import Location
from bonas_core.storage.tensors import read_tensors, write_tensors

FORMAT = 1


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
