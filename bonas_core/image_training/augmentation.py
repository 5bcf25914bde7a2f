"""Random changes to training images, a whole batch at a time and on its device.

Where several processes share a batch, each draws for the whole of it and uses what belongs to its own rows, so that an
image is changed in the same way however many there are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

_RATIO = 4 / 3  # of a resized crop's sides, at most; both ways
_GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue in brightness
_FIRST = ("crop", "flip", "cutout")  # what there was from the beginning
_COLOURS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Augmentation:
    """Which random changes are made to training images.

    Crop, flip and cutout are as usual for CIFAR (DeVries & Taylor 2017 for cutout), resized crops and colours as usual
    for ImageNet (Szegedy et al. 2015; DARTS).
    """

    crop: int = 0
    """Pixels of black border around an image, out of which a part of its own size is cut at random."""
    flip: bool = False
    """Whether every second image, at random, is mirrored left to right."""
    cutout: int = 0
    """Side of the square, centred on a random pixel and cut off at the edges, that is set to the mean."""

    resized_crop: float = 0.0
    """Least share of an image's area that a part of it has, which is cut out at random and resized to the whole; 0 for
    none. Its sides are as 3:4 to 4:3, uniformly by their logarithm, and no longer than the image's."""
    brightness: float = 0.0
    """Pixels are multiplied by a random factor of 1 +- this, one an image."""
    contrast: float = 0.0
    """Likewise for their distance from the image's mean grey."""
    saturation: float = 0.0
    """Likewise for their distance from their own grey."""
    hue: float = 0.0
    """Colours are turned around grey by a random angle of up to +- this, in full turns."""

    def __bool__(self) -> bool:
        return self != Augmentation()

    @property
    def colours(self) -> bool:
        """Whether colours are changed, which takes pixels in red, green and blue."""
        return any(getattr(self, name) for name in _COLOURS)

    @property
    def recipe(self) -> dict[str, float]:
        """The settings as a part of a training's identity: what was added later counts where it is used."""
        return {name: value for name, value in asdict(self).items() if value or name in _FIRST}

    def moved(
        self, images: Tensor, generator: torch.Generator, size: int | None = None, rows: slice = slice(None)
    ) -> Tensor:
        """Crops, flips, and changes colours; then the pixels are float32.

        Args:
            images: (B, channels, height, width) pixels from 0, which is black.
            generator: on the device of the images.
            size: of the batch; by default B.
            rows: of the batch, which the images are; by default all.
        """
        size = size or len(images)
        if self.resized_crop:
            images = self._resized(images, generator, size, rows)
        if self.crop or self.flip:
            images = self._cut(images, generator, size, rows)
        return self._coloured(images, generator, size, rows) if self.colours else images

    def _cut(self, images: Tensor, generator: torch.Generator, size: int, rows: slice) -> Tensor:
        B, _, H, W = images.shape
        device = images.device
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

    def _resized(self, images: Tensor, generator: torch.Generator, size: int, rows: slice) -> Tensor:
        B, C, H, W = images.shape
        area, ratio, down, right = torch.rand(4, size, generator=generator, device=images.device)[:, rows]
        area = self.resized_crop + (1 - self.resized_crop) * area
        ratio = torch.exp((2 * ratio - 1) * math.log(_RATIO))
        high, wide = (torch.sqrt(part).clamp_max(1) for part in (area / ratio, area * ratio))
        placed = torch.zeros(B, 2, 3, device=images.device)  # from places in the new image to those in the old, -1 to 1
        placed[:, 0, 0], placed[:, 0, 2] = wide, (2 * right - 1) * (1 - wide)
        placed[:, 1, 1], placed[:, 1, 2] = high, (2 * down - 1) * (1 - high)
        grid = torch.nn.functional.affine_grid(placed, [B, C, H, W], align_corners=False)
        resized: Tensor = torch.nn.functional.grid_sample(
            images.float(), grid, padding_mode="border", align_corners=False
        )
        return resized

    def _coloured(self, images: Tensor, generator: torch.Generator, size: int, rows: slice) -> Tensor:
        drawn = 2 * torch.rand(4, size, 1, 1, 1, generator=generator, device=images.device)[:, rows] - 1
        brightness, contrast, saturation, hue = (getattr(self, name) * drawn[k] for k, name in enumerate(_COLOURS))
        images = (images.float() * (1 + brightness)).clamp_(0, 255)
        mean = _grey(images).mean(dim=(2, 3), keepdim=True)
        images = (mean + (images - mean) * (1 + contrast)).clamp_(0, 255)
        grey = _grey(images)
        colour = (images - grey) * (1 + saturation)
        if self.hue:
            colour = _turned(colour, 2 * math.pi * hue)
        changed: Tensor = (grey + colour).clamp_(0, 255)
        return changed

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


def _grey(images: Tensor) -> Tensor:
    """(B, 1, height, width) the brightness of pixels."""
    shares = torch.tensor(_GREY, device=images.device).reshape(1, 3, 1, 1)
    return (images * shares).sum(dim=1, keepdim=True)


def _turned(colour: Tensor, angle: Tensor) -> Tensor:
    """Colours, which have no brightness, turned around grey: in the plane of YIQ, as is quick and keeps the brightness.

    Args:
        colour: (B, 3, height, width).
        angle: (B, 1, 1, 1) in radians.
    """
    to_plane = torch.tensor([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=colour.device)
    both = torch.cat([torch.tensor([_GREY], device=colour.device), to_plane])
    back = torch.linalg.inv(both)[:, 1:]
    cos, sin = torch.cos(angle).flatten(), torch.sin(angle).flatten()
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
    return torch.einsum("bij,bjhw->bihw", back @ rotation @ to_plane, colour)
