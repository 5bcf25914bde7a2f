"""A trained network as one file: its weights, and as JSON whatever is needed to build it anew.

The file is safetensors; nothing is ever unpickled. The auxiliary head, which only training needs, is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bonas_core.errors import InputError, ModelError, first_line
from bonas_core.image_training.splits import Splits
from bonas_core.networks.published import architecture_of
from bonas_core.problem import build_space
from bonas_core.registry import resolve
from bonas_core.spaces.architecture import Architecture
from bonas_core.storage import Location
from bonas_core.storage.tensors import SUFFIX, read_tensors, write_tensors

FILE_NAME = f"network{SUFFIX}"
FORMAT = 1

_AUXILIARY = "auxiliary"
_MOST = 10_000  # side of an image, classes
_TEXTS = ("space", "cell", "kind", "data")


class Classifier(nn.Module):
    """A trained network with what its inputs have to go through first.

    Images (B, channels, height, width) to logits (B, classes). Images are float32: pixels from 0 to 255 where the data
    set has a mean and a deviation, numbers as its data set holds them where it has none.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean or (0.0,)).reshape(-1, 1, 1))
        self.register_buffer("scale", torch.tensor(std or (1.0,)).reshape(-1, 1, 1))
        self.largest = 255.0 if mean else 1.0

    def forward(self, images: Tensor) -> Tensor:
        """Normalises images (B, channels, height, width) and returns their logits (B, classes)."""
        logits: Tensor = self.network((images / self.largest - self.mean) / self.scale)
        return logits


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What a final training leaves behind."""

    space: str
    """Name of the cell's space."""
    cell: str
    """The cell as its space prints it, or a published one as `format_cells` does."""
    kind: str
    """Registered name of the network, or `module:object`."""
    settings: Mapping[str, Any]
    """Of the network: channels, cells and what else it takes."""
    data: str
    """Name of the data set."""
    classes: int
    image: tuple[int, int, int]
    """Channels, height and width of the images that it was trained on."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    figures: Mapping[str, float]
    """What was found of it, in percent: `test`, and `validation` where images were held out; with many classes also
    `test_top5` and `validation_top5`."""
    weights: Mapping[str, NDArray[Any]]

    def write(self, path: Location) -> None:
        """Writes the file, whole or not at all."""
        described = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "weights"}
        write_tensors(path, {"format": FORMAT, **described}, self.weights)

    def classifier(self) -> Classifier:
        """The network, ready to classify, on the CPU.

        Raises:
            ModelError: it cannot be built: code of its own is needed, or it is not what it says.
        """
        for what, name in (("network", self.kind), ("space", self.space)):
            if ":" in name:  # a file must not say which code is loaded and called
                raise ModelError(
                    f"{what} `{name}` is named by a model file, which may come from anywhere; register it as an entry "
                    f"point `bonas.{what}` and train with that name"
                )
        try:
            architecture = architecture_of(build_space(self.space), self.cell)
            settings = _without_auxiliary(self.settings)
            network = unfilled_network(self.kind, architecture, self.image[0], self.classes, settings)
        except (InputError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"network `{self.kind}` cannot be built ({first_line(error)[:200]}); train it again"
            ) from None
        wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        if wanted != {name: array.shape for name, array in self.weights.items()}:
            raise ModelError(f"network `{self.kind}`: the weights of the file are not those of the cell in it")
        # copied, since the arrays may be parts of a file that cannot be written to
        weights = {name: torch.from_numpy(np.array(array)) for name, array in self.weights.items()}
        network.load_state_dict(weights, assign=True)
        return Classifier(network, self.mean, self.std).eval()


def unfilled_network(
    kind: str, architecture: Architecture, in_channels: int, classes: int, settings: Mapping[str, Any]
) -> nn.Module:
    """A registered network without its weights, which takes no memory, however large it is.

    Raises:
        InputError: there is no such network, or the cell is not one of it.
    """
    with torch.device("meta"):
        network: nn.Module = resolve("network", kind)(
            architecture, generator=torch.Generator("cpu"), in_channels=in_channels, classes=classes, **settings
        )
    return network


def trained_network(
    network: nn.Module,
    architecture: Architecture,
    *,
    space: str,
    kind: str,
    settings: Mapping[str, Any],
    data: Splits,
    figures: Mapping[str, float],
) -> TrainedNetwork:
    """A network that has just been trained, on any device, as what is kept of it."""
    weights = {
        name: tensor.detach().cpu().contiguous().numpy()
        for name, tensor in network.state_dict().items()
        if not name.startswith(f"{_AUXILIARY}.")
    }
    channels, height, width = data.train[0].shape[1:]
    return TrainedNetwork(
        space=space,
        cell=architecture.text,
        kind=kind,
        settings=_without_auxiliary(settings),
        data=data.name,
        classes=data.classes,
        image=(channels, height, width),
        mean=data.mean,
        std=data.std,
        figures=figures,
        weights=weights,
    )


def read_trained(path: Location) -> TrainedNetwork:
    """Reads a file that `TrainedNetwork.write` wrote.

    Raises:
        ModelError: the file is missing, damaged, or something else.
    """
    try:
        described, weights = read_tensors(path)
        if described.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}, which this release reads")
        image, mean, std = (tuple(described.pop(name)) for name in ("image", "mean", "std"))
        found = TrainedNetwork(**described, image=image, mean=mean, std=std, weights=weights)
        _check(found)
        return found
    except FileNotFoundError:
        raise ModelError(f"model file `{path}` does not exist; only networks of `bonas train` can be loaded") from None
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"model file `{path}` is not a trained network ({first_line(error)[:200]}); name a model registered by "
            "`bonas train`"
        ) from None


def _check(found: TrainedNetwork) -> None:
    if not all(isinstance(getattr(found, name), str) for name in _TEXTS):
        raise ValueError("its description holds values of other types")
    if not (isinstance(found.settings, dict) and isinstance(found.figures, dict)):
        raise ValueError("its description holds values of other types")
    sizes = (found.classes, *found.image)
    if len(found.image) != 3 or not all(type(size) is int and 1 <= size <= _MOST for size in sizes):
        raise ValueError(f"its sizes {sizes} are not those of images and classes")
    if len(found.mean) != len(found.std) or len(found.mean) not in (0, found.image[0]):
        raise ValueError("it has not one mean and deviation per channel")
    if not all(isinstance(x, float) and math.isfinite(x) for x in (*found.mean, *found.std)) or 0.0 in found.std:
        raise ValueError("its mean and deviation are not finite numbers above 0")
    for array in found.weights.values():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ValueError("not all of its weights are finite")


def _without_auxiliary(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a network that is not trained any further."""
    return {**settings, **({_AUXILIARY: False} if _AUXILIARY in settings else {})}
