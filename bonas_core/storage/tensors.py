"""Arrays with a JSON description in one safetensors file; nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bonas_core.errors import StoreError
from bonas_core.storage import Location, parse_json, read_whole, write_whole

SUFFIX = ".safetensors"
"""Of the names of such files, and of prepared images and checkpoints."""

_LARGEST = 1 << 30  # bytes of a file; ours are about a megabyte
_KEY = "bonas"


def write_tensors(path: Location, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a file, whole or not at all."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_whole(path, save(contiguous, metadata={_KEY: json.dumps(described)}))


def read_tensors(path: Location) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The description and the arrays of a file that `write_tensors` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged or something else; the message says in what way.
    """
    try:
        data = read_whole(path, _LARGEST)
        arrays = load(data)  # checks the header, before anything of it is used here
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return parse_json(header["__metadata__"][_KEY]), arrays
    except (SafetensorError, StoreError) as error:
        raise ValueError(str(error)) from None
    except (KeyError, TypeError, RecursionError):
        raise ValueError("it has no description") from None
