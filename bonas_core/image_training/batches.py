"""Batches of images on their way to a network: from a copy on the device, or gathered row by row while it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Images and labels."""

RESIDENT = 2 << 30
"""Bytes of images that are moved to a device as a whole."""


class Source:
    """Images and labels as batches on a device.

    Of more images than are moved there as a whole, every batch is gathered by itself, in a thread that is one ahead.

    Args:
        pair: images (n, channels, height, width) and labels (n,), on the CPU; the images may be memory-mapped.
        device: where batches are wanted.
    """

    def __init__(self, pair: Batch, device: torch.device) -> None:
        images, labels = pair
        self.device = device
        self._is_resident = images.nbytes <= RESIDENT
        self._pair = (images.to(device), labels.to(device)) if self._is_resident else pair

    def __len__(self) -> int:
        return len(self._pair[1])

    def batches(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """The images and labels of these rows, which are int64 on the CPU, part by part."""
        if not parts:
            return
        images, labels = self._pair
        if self._is_resident:
            for rows in torch.split(torch.cat(list(parts)).to(self.device), [len(rows) for rows in parts]):
                yield images[rows], labels[rows]
            return
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self._gather, parts[0])
            for following in (*parts[1:], None):
                images, labels = coming.result()
                if following is not None:
                    coming = thread.submit(self._gather, following)
                yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def _gather(self, rows: Tensor) -> Batch:
        images, labels = (tensor[rows] for tensor in self._pair)
        if self.device.type == "cuda":  # only from pinned memory is a copy made while the GPU computes
            return images.pin_memory(), labels.pin_memory()
        return images, labels
