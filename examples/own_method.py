"""A method of one's own: a strategy is one method, `propose`, that is a pure function of the trials so far.

Its settings are declared beside it, so that a mistake in them is told in one line before anything starts. Here, or from
this folder: bonas search quickstart --set method.name=own_method:Tweak --set method.options='{tries: 50}'
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from bonas_core import MethodSettings, Proposal, Search, Trials, initial_design


class TweakSettings(MethodSettings):
    """Tweak."""

    initial: int = Field(5, ge=2, description="random trials that start the search")
    tries: int = Field(100, ge=1, description="mutants of the best cell to choose from")


class Tweak:
    """Mutates the best cell so far; where all mutants are known, a random cell is next."""

    Settings: ClassVar = TweakSettings

    def __init__(self, space, settings):
        self.space, self.initial, self.tries = space, settings.initial, settings.tries

    @classmethod
    def from_settings(cls, settings, space, objective, predictor=None):
        """Makes the strategy of a search."""
        return cls(space, settings)

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Chooses `count` cells; all randomness comes from the seed and the number of trials."""
        n = len(trials)
        if n < self.initial:
            return [Proposal(cell, "initial") for cell in initial_design(self.space, n + count, seed)[n:]]
        rng = np.random.default_rng((seed, n))
        rows, scores = trials.observed()
        best = trials.genotypes[rows[scores.argmax()]]
        pool = np.concatenate(
            [self.space.mutate(np.repeat(best[None], self.tries, axis=0), rng), self.space.sample(1000, rng)]
        )
        keys = self.space.keys(pool)
        _, first = np.unique(keys, return_index=True)
        new = [row for row in np.sort(first) if keys[row] not in trials.keys]
        return [Proposal(pool[row], "tweak") for row in new[:count]]


if __name__ == "__main__":
    search = Search(
        "nasbench201",
        lambda cell: cell.operations.count("nor_conv_3x3"),
        unit="count",
        trials=40,
        method={"name": "own_method:Tweak", "options": {"tries": 50}},
    )
    print(f"best: {search.run().architecture}")
