"""Random changes to training images, a whole batch at a time and on its device.

Where several processes share a batch, each draws for the whole of it and uses what belongs to its own rows, so that an
image is changed in the same way however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Crop, flip and cutout as they are usual for CIFAR (DeVries & Taylor 2017 for cutout)."""

    crop: int = 0
    """Pixels of black border around an image, out of which a part of its own size is cut at random."""
    flip: bool = False
    """Whether every second image, at random, is mirrored left to right."""
    cutout: int = 0
    """Side of the square, centred on a random pixel and cut off at the edges, that is set to the mean."""

    def __bool__(self) -> bool:
        return bool(self.crop or self.flip or self.cutout)

    def moved(
        self, images: Tensor, generator: torch.Generator, size: int | None = None, rows: slice = slice(None)
    ) -> Tensor:
        """Crops and flips.

        Args:
            images: (B, channels, height, width) pixels from 0, which is black.
            generator: on the device of the images.
            size: of the batch; by default B.
            rows: of the batch, which the images are; by default all.
        """
        if not (self.crop or self.flip):
            return images
        B, _, H, W = images.shape
        size, device = size or B, images.device
        down, right = torch.zeros(2, B, dtype=torch.int64, device=device)
        if self.crop:
            down, right = torch.randint(2 * self.crop + 1, (2, size), generator=generator, device=device)[:, rows]
            images = torch.nn.functional.pad(images, (self.crop,) * 4)
        columns = torch.arange(W, device=device).expand(B, W)
        if self.flip:
            mirrored = torch.rand(size, generator=generator, device=device)[rows] < 0.5
            columns = torch.where(mirrored[:, None], W - 1 - columns, columns)
        lines = down[:, None] + torch.arange(H, device=device)
        columns = right[:, None] + columns
        image = torch.arange(B, device=device)[:, None, None]
        # (B, H, W, channels) in memory: what convolutions with channels last take as it is
        return images.permute(0, 2, 3, 1)[image, lines[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def cut_out(
        self, images: Tensor, generator: torch.Generator, size: int | None = None, rows: slice = slice(None)
    ) -> Tensor:
        """Sets squares of normalised images (B, channels, height, width) to 0, the mean; see `moved`."""
        if not self.cutout:
            return images
        B, _, H, W = images.shape
        half = self.cutout // 2
        inside = []
        for side, shape in ((H, (B, 1, H, 1)), (W, (B, 1, 1, W))):
            centre = torch.randint(side, (size or B, 1), generator=generator, device=images.device)[rows]
            place = torch.arange(side, device=images.device)
            inside.append(((place >= centre - half) & (place < centre - half + self.cutout)).reshape(shape))
        return images.masked_fill(inside[0] & inside[1], 0.0)
