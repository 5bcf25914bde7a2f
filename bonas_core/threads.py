"""How many CPU threads torch and numpy use: a part of every result, as sums are added in another order with others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy  # noqa: F401  its BLAS has to be there to be found
import scipy.linalg  # noqa: F401  so has scipy's
import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Computes with `count` threads within the block, in the calling thread.

    Small networks are best off with one: more wait for each other, and on a busy machine they wait very long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Computes with numpy and scipy in one thread within the block.

    With more, the last digits of a regression depend on the machine's cores, and a search that goes on elsewhere would
    not make the same trials.
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
