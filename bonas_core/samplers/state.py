"""What a sampler has learnt at one point of a search, also as a file: a search that goes on need not learn it again.

The file is safetensors, as predictors are; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bonas_core.errors import ModelError
from bonas_core.samplers.base import Learnt
from bonas_core.storage import write_whole

FORMAT = 1
_LARGEST = 1 << 30  # bytes of a file; ours are about a megabyte


@dataclass(frozen=True)
class SamplerState:
    """What a sampler has learnt from the first `seen` trials."""

    version: str
    """Digest of the settings, the seed and those trials: equal versions are equal states."""
    seen: int
    learnt: Learnt

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        described = {"format": FORMAT, "version": self.version, "seen": self.seen}
        arrays = {name: np.ascontiguousarray(array) for name, array in self.learnt.items()}
        write_whole(path, save(arrays, metadata={"bonas": json.dumps(described)}))


def read_state(path: Path) -> SamplerState:
    """Reads a file that `SamplerState.write` wrote.

    Raises:
        ModelError: the file is missing, damaged, or something else.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is larger than any")
        with safe_open(path, framework="numpy") as file:
            described = json.loads((file.metadata() or {})["bonas"])
            learnt = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if described["format"] != FORMAT:
            raise ValueError(f"its format is {described['format']}, this release reads {FORMAT}")
        return SamplerState(str(described["version"]), int(described["seen"]), learnt)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"`{path}` is not the state of a sampler ({reason}); remove it, and it is made again"
        ) from None
