"""How many CPU threads numpy's linear algebra uses: one, so that results do not depend on the machine's cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy  # noqa: F401  its BLAS has to be loaded to be found
from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Computes with numpy in one thread within the block.

    With more, the last digits of a regression depend on the machine's cores, and a search that goes on elsewhere would
    not make the same trials.
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
