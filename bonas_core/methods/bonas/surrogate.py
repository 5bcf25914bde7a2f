"""What BONAS learns from trials: an embedding of architectures, and a regression of their scores on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bonas_core.determinism.randomness import Purpose, derived_seed
from bonas_core.methods.bonas.predictors.base import Predictor, PredictorWeights
from bonas_core.methods.bonas.predictors.losses import loss_weights
from bonas_core.methods.bonas.regression import FittedRegression, LinearRegression, Regression
from bonas_core.methods.bonas.targets import Targets, transform
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.trials import Trials

Features = NDArray[np.float32]


@dataclass(frozen=True)
class FittedPredictor:
    """A predictor trained on the first `trained_on` trials."""

    version: str
    """Digest of the settings and of the trials that it saw: equal versions are equal predictors."""
    trained_on: int
    weights: PredictorWeights


@dataclass(frozen=True)
class Surrogate:
    """The regression on embeddings of all observed trials, with the scale of its targets."""

    regression: FittedRegression
    targets: Targets
    best: float
    """The target to improve upon: the incumbent of the acquisition function."""

    def predict_scores(self, features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predicted scores of n architectures and their standard deviations, both (n,)."""
        posterior = self.regression.posterior(features)
        mean = self.targets.to_scores(posterior.mean)
        # a transform that bends has no single scale: take it over one deviation to each side
        upper = self.targets.to_scores(posterior.mean + posterior.std)
        lower = self.targets.to_scores(posterior.mean - posterior.std)
        return mean, (upper - lower) / 2


@dataclass(frozen=True)
class Learner:
    """How a surrogate is learnt: its parts, each of which can be exchanged for another."""

    space: SearchSpace
    predictor: Predictor
    """Learns the embedding."""
    regression: Regression = field(default_factory=lambda: LinearRegression("constant"))
    """Of targets on embeddings, fitted anew after every trial."""
    loss: str = "exp"
    """Weights the squared errors of the predictor's training, one of `LOSSES`."""
    targets: str = "standardise"
    """Transform of scores before they are learnt, one of `TRANSFORMS`."""
    incumbent: str = "observed"
    """What is to be improved upon: `observed`, the best target; or `posterior`, the best predicted mean of what was
    evaluated, where single evaluations are noisy."""
    fractions: bool = True
    """Whether scores lie in [0, 1]; otherwise loss weights are computed from scores scaled to their own range."""
    start: PredictorWeights | None = None
    """Weights that every training of the predictor begins from (warm start, paper section 4.4.2)."""
    digest: str = ""
    """Of all settings that a predictor depends on; becomes part of its version."""

    def version(self, seen: Trials, seed: int) -> str:
        """Version of the predictor that sees just these trials, without training it."""
        return digest_of(f"{self.digest}|{seed}|{len(seen)}", seen.keys, seen.scores, seen.diverged)

    def fit_predictor(self, seen: Trials, seed: int) -> FittedPredictor:
        """Trains the predictor on all of these trials (paper Algorithm 1, lines 2 and 19)."""
        size = len(seen)
        rows, scores = seen.observed()
        y = scores if self.fractions else (scores - scores.min()) / (np.ptp(scores) or 1.0)
        graphs = self.space.encode(seen.genotypes[rows])
        values, weights = transform(scores, self.targets).values, loss_weights(y, self.loss)
        own_seed = derived_seed(seed, Purpose.PREDICTOR, size)
        fitted = self.predictor.fit(graphs, values, weights, own_seed, self.start)
        return FittedPredictor(self.version(seen, seed), size, fitted)

    def embed(self, fitted: FittedPredictor, genotypes: Genotypes) -> Features:
        """Embeddings (n, M) of n architectures (line 9)."""
        if not len(genotypes):  # the space is used up; how wide features are, one architecture tells
            return self.embed(fitted, self.space.sample(1, np.random.default_rng(0)))[:0]
        return self.predictor.embed(fitted.weights, self.space.encode(genotypes))

    def observed(self, trials: Trials, features: Features) -> tuple[Features, Targets]:
        """Embeddings and targets of the observed ones among the trials."""
        rows, scores = trials.observed()
        return features[rows], transform(scores, self.targets)

    def regress(self, features: Features, values: NDArray[np.float64], targets: Targets) -> Surrogate:
        """Fits the regression (line 16).

        Args:
            features: (n, M) embeddings.
            values: (n,) what is taken for their targets.
            targets: the scale that they are on.
        """
        fitted = self.regression.fit(features, values)
        expected = values if self.incumbent == "observed" else fitted.posterior(features).mean
        return Surrogate(fitted, targets, float(expected.max()))

    def fit_surrogate(self, trials: Trials, features: Features) -> Surrogate:
        """Fits the regression to every observed trial; `features` are the trials' embeddings."""
        observed, targets = self.observed(trials, features)
        return self.regress(observed, targets.values, targets)


def digest_of(text: str, *columns: NDArray[Any]) -> str:
    """A short digest of a text and of columns of trials: a version."""
    digest = hashlib.sha256(text.encode())
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]
