"""Decodes image files to pixels of one size; imports no more than that takes, since it runs in processes of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bonas_core.errors import first_line


def decoded(path: Path, side: int, short_side: int) -> NDArray[np.uint8]:
    """Decodes the middle of an image.

    Args:
        path: of a JPEG or PNG.
        side: of the square that is cut out of the middle.
        short_side: what the shorter side is resized to before.

    Returns:
        (3, side, side) pixels.

    Raises:
        ValueError: it cannot be read; the message names it.
    """
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            image.draft("RGB", (short_side, short_side))  # decodes a JPEG at a fraction of its size where that will do
            pixels = image.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        reason = first_line(error)
        raise ValueError(f"image `{path}` cannot be read ({reason[:200]})") from None
    scale = short_side / min(pixels.size)
    width, height = (max(side, round(length * scale)) for length in pixels.size)
    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    pixels = pixels.crop((left, top, left + side, top + side))
    return np.ascontiguousarray(np.asarray(pixels).transpose(2, 0, 1))
