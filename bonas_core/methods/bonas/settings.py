"""Settings of BONAS: which of its parts are put together, and how often what is learnt is learnt again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from bonas_core.settings.group import Group, offer_names
from bonas_core.settings.method import MethodSettings, MutationRule

PAPER: Mapping[str, Mapping[str, Any]] = {
    # sections 3 and 4.2; what the paper leaves open (initial weights, population) is as in the original code
    "method": {
        "sampler": "evolution", "pool": 1000, "initial": 10, "retrain_every": 10, "retrain_growth": 0.0,
        "population": 30, "tournament": 10, "random_fraction": 0.0, "patience": 0,
    },
    "predictor": {
        "loss": "exp", "epochs": 100, "learning_rate": 1e-3, "batch_size": 128, "ensemble": 1,
        "targets": "standardise", "intercept": "constant", "min_noise": 1e-4,
    },
    "gcn": {"layers": 4, "width": 64, "initialisation": "uniform", "readout": "global", "normalisation": "none"},
}  # fmt: skip
"""The method as printed; the defaults are the recipe `best`, which needs the fewest samples of all that was measured
(docs/results.md)."""


class ControllerSettings(Group):
    """The controller of the reinforce sampler, and how it is trained (Zoph et al. 2018)."""

    units: int = Field(100, ge=1, le=4096, description="units of the LSTM")
    samples: int = Field(1000, ge=2, le=1_000_000, description="architectures rewarded at every update")
    minibatch: int = Field(20, ge=1, description="architectures per gradient step")
    epochs: int = Field(1, ge=1, le=1000, description="passes over the architectures of an update")
    learning_rate: float = Field(3.5e-4, gt=0, description="of Adam")
    clip: float = Field(
        0.2, gt=0, lt=1, description="how far a probability may be moved, of proximal policy optimisation"
    )
    entropy: float = Field(1e-5, ge=0, description="weight of the entropy bonus")


class BonasSettings(MethodSettings):
    """BONAS: predictor, regression, acquisition function, sampler and schedule."""

    name: Literal["bonas"] = "bonas"
    recipe: Literal["best", "paper"] = Field(
        "best", description="decides on all that is left empty here and in `predictor`"
    )
    sampler: str = Field(
        "auto",
        description="candidates: evolution, random, reinforce, exhaustive, or auto (exhaustive in small spaces, else "
        "evolution)",
        json_schema_extra=offer_names("sampler", "auto"),
    )
    acquisition: str = Field(
        "ei",
        description="what a candidate is worth: ei (expected improvement), ucb (upper confidence bound), thompson, "
        "mean, pi (probability of improvement), or module:object",
        json_schema_extra=offer_names("acquisition"),
    )
    regression: str = Field(
        "blr",
        description="of scores on embeddings: blr (Bayesian linear), gp (Gaussian process), or module:object",
        json_schema_extra=offer_names("regression"),
    )
    pool: int = Field(1000, ge=1, le=10_000_000, description="candidates scored at every step")
    initial: int = Field(5, ge=2, le=100_000, description="random trials that start the search")
    retrain_every: int = Field(10, ge=1, description="trials between retrainings of the predictor")
    retrain_growth: float = Field(
        0.05,
        ge=0,
        le=1,
        description="the same as a share of the trials that the predictor has seen; the larger of the two counts",
    )
    shortlist: int = Field(
        4096, ge=1, description="exhaustive sampler: candidates that are scored again between retrainings"
    )
    incumbent: Literal["observed", "posterior"] = Field(
        "observed",
        description="what is to be improved upon: the best objective or, where single evaluations are noisy, the best "
        "predicted mean of what was evaluated",
    )
    population: int = Field(30, ge=2, description="evolution sampler: trials alive")
    tournament: int = Field(10, ge=1, description="evolution sampler: entrants of a tournament")
    random_fraction: float = Field(
        0.5, ge=0, le=1, description="evolution sampler: share of the pool that is drawn at random"
    )
    mutation: MutationRule = None
    controller: ControllerSettings = Field(
        default_factory=lambda: ControllerSettings(), description="of the reinforce sampler"
    )
    patience: int = Field(
        25, ge=0, description="trials without improvement after which every fourth trial is a random one; 0: never"
    )

    by_recipe: ClassVar[frozenset[str]] = frozenset(PAPER["method"])

    @model_validator(mode="before")
    @classmethod
    def _apply_recipe(cls, tree: Any) -> Any:
        if isinstance(tree, Mapping) and tree.get("recipe") == "paper":
            return {**PAPER["method"], **tree}
        return tree

    def predictor_defaults(self, kind: str) -> Mapping[str, Any]:
        """What the recipe fills into `predictor`: nothing where it is `best`, whose figures are the defaults."""
        if self.recipe == "best":
            return {}
        common = PAPER["predictor"]
        if kind == "gcn":
            return {**common, **PAPER["gcn"]}
        # what the paper compares its predictor with has a learning rate of its own
        return {name: value for name, value in common.items() if name != "learning_rate"}
