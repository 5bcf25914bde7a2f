"""How many CPU threads torch uses: a part of every result, since sums are added in another order with others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Computes with `count` threads within the block, in the calling thread.

    Small networks are best off with one: more wait for each other, and on a busy machine they wait very long.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
