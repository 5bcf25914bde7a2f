"""What makes a network of an architecture, and what the network may offer to its training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from bonas_core.errors import SettingsError
from bonas_core.registry import resolve
from bonas_core.spaces.architecture import Architecture


class NetworkFactory(Protocol):
    """What `network.kind` names: a function or class that makes the network of an architecture.

    The network is made on the CPU, and all its weights are drawn from `generator`, a CPU generator. `settings` are
    those of `network` without `kind`: `channels`, `cells`, and whatever else was given. A network that draws random
    numbers while it trains should be `EpochAware`: if it draws them elsewhere, as dropout does, it works, but its
    trainings cannot be repeated bit for bit. In training it may return two outputs, its logits and those of an
    auxiliary head; parameters named `auxiliary.*` are not counted.
    """

    def __call__(
        self, architecture: Architecture, *, generator: torch.Generator, in_channels: int, classes: int, **settings: Any
    ) -> nn.Module:
        """Makes the network of an architecture, for images of `in_channels` channels and `classes` classes."""


@runtime_checkable
class EpochAware(Protocol):
    """What a network offers if it changes in the course of its training or draws random numbers in it."""

    def begin_epoch(self, progress: float, generator: torch.Generator) -> None:
        """Called before every epoch.

        Args:
            progress: share of the epochs that are done.
            generator: where this epoch's random numbers are to be drawn from, on the device of the network.
        """


@runtime_checkable
class BatchAware(Protocol):
    """What a network offers that draws random numbers for every image.

    In a training in several processes, it has to draw for the images of all of them.
    """

    def begin_batch(self, size: int, rows: slice) -> None:
        """Called before every batch of `size` images, of which the network is then given `rows`."""


def network_factory(kind: str, settings: Mapping[str, Any]) -> NetworkFactory:
    """What `network.kind` names.

    Raises:
        SettingsError: there is no such factory, or it does not take these settings.
    """
    factory: NetworkFactory = resolve("network", kind)
    try:
        inspect.signature(factory).bind(None, generator=None, in_channels=None, classes=None, **settings)
    except TypeError as error:
        raise SettingsError(f"network `{kind}`: {error}; check the settings under evaluator.network") from None
    return factory
