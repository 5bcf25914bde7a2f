"""A fitted predictor as one file: network and regression together, able to rank any architectures of its space.

The file is safetensors; what the arrays mean stands in its metadata as JSON. Nothing is ever unpickled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bonas_core.build import Problem
from bonas_core.errors import ModelError, first_line
from bonas_core.methods.bonas.predictors.base import Predictor, PredictorWeights
from bonas_core.methods.bonas.regression import BayesianLinearRegression
from bonas_core.methods.bonas.strategy import Bonas, FittedPredictor, Surrogate
from bonas_core.methods.bonas.targets import Targets
from bonas_core.registry import resolve
from bonas_core.settings import PredictorSettings
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.storage import Location
from bonas_core.storage.tensors import SUFFIX, read_tensors, write_tensors
from bonas_core.trials import Objective, Trials

FORMAT = 1
FILE_NAME = f"predictor{SUFFIX}"
_NETWORK = "network/"
_VERSION = re.compile(r"[A-Za-z0-9-]{1,64}")  # it becomes part of file names


@dataclass(frozen=True)
class PredictorModel:
    """A predictor, its regression, and the objective that they predict."""

    space: str
    encoding_version: int
    vocabulary: tuple[str, ...]
    settings: PredictorSettings
    objective: Objective
    fitted: FittedPredictor
    surrogate: Surrogate

    def predict(self, space: SearchSpace, genotypes: Genotypes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predicted objective of n architectures and its standard deviation, both (n,), in the objective's own unit.

        Raises:
            ModelError: the model is of another space, or of another version of its encoding.
        """
        self.check_space(space)
        if ":" in str(self.settings.kind):  # a file must not say which code is loaded and called
            raise ModelError(
                f"predictor of kind `{self.settings.kind}` is named by a model file, which may come from anywhere; "
                "register it as an entry point `bonas.predictor` and train with that name"
            )
        predictor: Predictor = resolve("predictor", str(self.settings.kind))(space, self.settings)
        features = predictor.embed(self.fitted.weights, space.encode(genotypes))
        mean, std = self.surrogate.predict_scores(features)
        return np.vectorize(self.objective.objective)(mean), np.abs(np.vectorize(self.objective.objective)(std))

    def check_space(self, space: SearchSpace) -> None:
        """Raises ModelError unless architectures of `space` mean to this model what they meant in its training."""
        if (self.space, self.encoding_version) != (space.name, space.encoding_version):
            raise ModelError(
                f"predictor of space `{self.space}` (encoding {self.encoding_version}) cannot rank space "
                f"`{space.name}` (encoding {space.encoding_version}); name a model of that space with --model"
            )

    def write(self, path: Location) -> None:
        """Writes the file, whole or not at all."""
        regression, targets = self.surrogate.regression, self.surrogate.targets
        tensors: dict[str, NDArray[Any]] = {
            _NETWORK + name: array for name, array in self.fitted.weights.tensors.items()
        }
        tensors |= {
            "regression/offset": regression.offset,
            "regression/weights": regression.weights,
            "regression/basis": regression.basis,
            "regression/shrinkage": regression.shrinkage,
            "targets/nodes": targets.nodes,
            "targets/node_values": targets.node_values,
        }
        described = {
            "format": FORMAT,
            "space": self.space,
            "encoding_version": self.encoding_version,
            "vocabulary": self.vocabulary,
            "settings": self.settings.model_dump(mode="json"),
            "objective": {
                "name": self.objective.name,
                "unit": self.objective.unit,
                "direction": self.objective.direction,
            },
            "version": self.fitted.version,
            "trained_on": self.fitted.trained_on,
            "losses": self.fitted.weights.losses,
            "regression": {
                "alpha": regression.alpha,
                "beta": regression.beta,
                "log_evidence": regression.log_evidence,
                "intercept": regression.intercept,
            },
            "targets": {"kind": targets.kind, "centre": targets.centre, "spread": targets.spread},
        }
        write_tensors(path, described, tensors)


def fit_model(problem: Problem, strategy: Bonas, trials: Trials, seed: int) -> PredictorModel:
    """Trains the predictor that the next proposal uses, with its regression on the same trials."""
    space = strategy.space
    fitted = strategy.fit_predictor(trials, seed)
    seen = trials.first(fitted.trained_on)
    features = strategy.predictor.embed(fitted.weights, space.encode(seen.genotypes))
    return PredictorModel(
        space=space.name,
        encoding_version=space.encoding_version,
        vocabulary=space.vocabulary,
        settings=problem.settings.predictor,
        objective=problem.objective,
        fitted=fitted,
        surrogate=strategy.fit_surrogate(seen, features),
    )


def read_model(path: Location) -> PredictorModel:
    """Reads a file that `PredictorModel.write` wrote.

    Raises:
        ModelError: the file is missing, damaged, or something else.
    """
    try:
        described, tensors = read_tensors(path)
        if described["format"] != FORMAT:
            raise ModelError(
                f"model file `{path}` has format {described['format']}, this release reads {FORMAT}; upgrade"
            )
        return _from_parts(described, tensors)
    except FileNotFoundError:
        raise ModelError(
            f"model file `{path}` does not exist; only predictors registered by a search can be loaded"
        ) from None
    except (KeyError, ValueError, TypeError, ValidationError) as error:
        reason = first_line(error)
        raise ModelError(
            f"model file `{path}` is not a predictor ({reason}); name a model registered by a search"
        ) from None


def _check_parts(
    settings: PredictorSettings, regression: BayesianLinearRegression, targets: Targets, size: int
) -> None:
    """Checks what would fail, or take all memory, only later; `size` is the number of weights."""
    units, layers = settings.width or 1, settings.layers or 1
    if str(settings.kind) == "mlp":
        inner = sum(a * b for a, b in pairwise(settings.widths))
    elif str(settings.kind) in ("gcn", "lstm"):
        inner = (layers - 1) * units**2
    else:
        inner = 0
    if inner * (settings.ensemble or 1) > size:
        raise ValueError("it has fewer weights than its settings say")
    arrays = (regression.offset, regression.weights, regression.basis, regression.shrinkage)
    if not all(
        np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all()
        for array in (*arrays, targets.nodes, targets.node_values)
    ):
        raise ValueError("not all of its numbers are finite")
    columns = len(regression.offset) + bool(regression.intercept)
    shapes = [array.shape for array in arrays[1:4]]
    if regression.basis.ndim != 2 or shapes != [(columns,), (len(regression.basis), columns), (len(regression.basis),)]:
        raise ValueError("the arrays of its regression do not belong together")
    if targets.nodes.ndim != 1 or targets.nodes.shape != targets.node_values.shape or not len(targets.nodes):
        raise ValueError("the arrays of its targets do not belong together")
    if not all(isinstance(x, float | int) for x in (regression.alpha, regression.beta, targets.centre, targets.spread)):
        raise ValueError("its regression is not one of numbers")


def _from_parts(described: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> PredictorModel:
    if not _VERSION.fullmatch(described["version"]):
        raise ValueError(f"its version is `{described['version'][:80]}`, not a digest")
    network = {name.removeprefix(_NETWORK): array for name, array in tensors.items() if name.startswith(_NETWORK)}
    regression = BayesianLinearRegression(
        **described["regression"],
        offset=tensors["regression/offset"],
        weights=tensors["regression/weights"],
        basis=tensors["regression/basis"],
        shrinkage=tensors["regression/shrinkage"],
    )
    targets = Targets(
        values=tensors["targets/node_values"],
        nodes=tensors["targets/nodes"],
        node_values=tensors["targets/node_values"],
        **described["targets"],
    )
    settings = PredictorSettings.model_validate(described["settings"])
    _check_parts(settings, regression, targets, sum(array.size for array in network.values()))
    if not (isinstance(described["space"], str) and isinstance(described["trained_on"], int)):
        raise ValueError("its description holds values of other types")
    return PredictorModel(
        space=described["space"],
        encoding_version=described["encoding_version"],
        vocabulary=tuple(described["vocabulary"]),
        settings=settings,
        objective=Objective(**described["objective"]),
        fitted=FittedPredictor(
            described["version"], described["trained_on"], PredictorWeights(network, tuple(described["losses"]))
        ),
        surrogate=Surrogate(regression, targets, float(targets.values.max())),
    )
