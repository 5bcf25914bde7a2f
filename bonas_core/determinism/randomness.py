"""Random streams that depend on a seed, a purpose and a number only, so that a search replays from anywhere."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for; the values are part of every replay and never change."""

    INITIAL = 0
    POOL = 1
    PREDICTOR = 2
    TIE_BREAK = 3
    TRIAL = 4
    BASELINE = 5
    SAMPLER = 6
    EXPLORATION = 7
    ACQUISITION = 8
    SHORTLIST = 9
    REWARD = 10


def generator(seed: int, purpose: Purpose, number: int = 0) -> np.random.Generator:
    """The generator of one purpose at one point of a search, e.g. the pool of trial 17."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(purpose), number)))


def derived_seed(seed: int, purpose: Purpose, number: int = 0) -> int:
    """A 31-bit seed for a library with its own generators."""
    return int(np.random.SeedSequence(seed, spawn_key=(int(purpose), number)).generate_state(1)[0] >> 1)
