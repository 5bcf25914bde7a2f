"""A fitted predictor as one file: network and regression together, able to rank any architectures of its space.

The file is safetensors; what the arrays mean stands in its metadata as JSON. Nothing is ever unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bonas_core.errors import ModelError, first_line
from bonas_core.methods.bonas.predictors.base import Predictor, PredictorWeights
from bonas_core.methods.bonas.regression import Regression, stored_array, stored_number
from bonas_core.methods.bonas.surrogate import FittedPredictor, Surrogate
from bonas_core.methods.bonas.targets import Targets
from bonas_core.registry import make
from bonas_core.settings.predictor import PREDICTOR, PredictorSettings
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.storage import Location
from bonas_core.storage.tensors import SUFFIX, read_tensors, write_tensors
from bonas_core.trials import Objective

FORMAT = 1
FOLDER = "predictors"
"""Where a search keeps its predictors."""
FILE_NAME = f"predictor{SUFFIX}"
_NETWORK = "network/"
_REGRESSION = "regression/"
_VERSION = re.compile(r"[A-Za-z0-9-]{1,64}")  # it becomes part of file names


@dataclass(frozen=True)
class ModelDescription:
    """What makes weights and arrays a predictor of one objective in one space."""

    space: str
    encoding_version: int
    vocabulary: tuple[str, ...]
    settings: PredictorSettings
    regression: str
    """Registered name of the regression."""
    objective: Objective


@dataclass(frozen=True)
class PredictorModel:
    """A predictor, its regression, and the objective that they predict."""

    description: ModelDescription
    fitted: FittedPredictor
    surrogate: Surrogate

    @property
    def space(self) -> str:
        """Name of the space."""
        return self.description.space

    @property
    def settings(self) -> PredictorSettings:
        """Settings of the predictor."""
        return self.description.settings

    @property
    def objective(self) -> Objective:
        """What is predicted."""
        return self.description.objective

    def predict(self, space: SearchSpace, genotypes: Genotypes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predicted objective of n architectures and its standard deviation, both (n,), in the objective's own unit.

        Raises:
            ModelError: the model is of another space, or of another version of its encoding.
        """
        self.check_space(space)
        if self.settings.code is not None:  # a file must not say which code is loaded and called
            raise ModelError(
                f"predictor `{self.settings.code}` is named by a model file, which may come from anywhere; "
                "register it as an entry point `bonas.predictor` and train with that name"
            )
        predictor: Predictor = self.settings.build(space)
        features = predictor.embed(self.fitted.weights, space.encode(genotypes))
        mean, std = self.surrogate.predict_scores(features)
        return np.vectorize(self.objective.objective)(mean), np.abs(np.vectorize(self.objective.objective)(std))

    def check_space(self, space: SearchSpace) -> None:
        """Raises ModelError unless architectures of `space` mean to this model what they meant in its training."""
        own = self.description
        if (own.space, own.encoding_version) != (space.name, space.encoding_version):
            raise ModelError(
                f"predictor of space `{own.space}` (encoding {own.encoding_version}) cannot rank space "
                f"`{space.name}` (encoding {space.encoding_version}); name a model of that space with --model"
            )

    def write(self, path: Location) -> None:
        """Writes the file, whole or not at all."""
        own, regression, targets = self.description, self.surrogate.regression, self.surrogate.targets
        tensors: dict[str, NDArray[Any]] = {
            _NETWORK + name: array for name, array in self.fitted.weights.tensors.items()
        }
        tensors |= {_REGRESSION + name: array for name, array in regression.arrays().items()}
        tensors |= {"targets/nodes": targets.nodes, "targets/node_values": targets.node_values}
        described = {
            "format": FORMAT,
            "space": own.space,
            "encoding_version": own.encoding_version,
            "vocabulary": own.vocabulary,
            "settings": own.settings.model_dump(mode="json"),
            "objective": asdict(own.objective),
            "version": self.fitted.version,
            "trained_on": self.fitted.trained_on,
            "losses": self.fitted.weights.losses,
            "regression": {"kind": own.regression, **regression.described()},
            "targets": {"kind": targets.kind, "centre": targets.centre, "spread": targets.spread},
        }
        write_tensors(path, described, tensors)


def predictor_path(folder: Location, trained_on: int, version: str) -> Location:
    """Where a search's folder keeps the predictor of a version; the file's own name is what the registry looks for."""
    return folder / FOLDER / f"{trained_on:06d}-{version}" / FILE_NAME


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
    except (KeyError, ValueError, TypeError, AttributeError, ValidationError) as error:
        reason = first_line(error)
        raise ModelError(
            f"model file `{path}` is not a predictor ({reason}); name a model registered by a search"
        ) from None


def _from_parts(described: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> PredictorModel:
    if not isinstance(described["version"], str) or not _VERSION.fullmatch(described["version"]):
        raise ValueError(f"its version is `{str(described['version'])[:80]}`, not a digest")
    if not (isinstance(described["space"], str) and isinstance(described["trained_on"], int)):
        raise ValueError("its description holds values of other types")
    settings = PREDICTOR.settings_class(str(described["settings"]["kind"])).model_validate(described["settings"])
    assert isinstance(settings, PredictorSettings)
    network = {name.removeprefix(_NETWORK): array for name, array in tensors.items() if name.startswith(_NETWORK)}
    _check_size(settings, sum(array.size for array in network.values()))
    kind = str(described["regression"]["kind"])
    if ":" in kind:
        raise ValueError(f"its regression `{kind[:80]}` is code; register it as an entry point `bonas.regression`")
    regression: Regression = make("regression", kind, settings)
    arrays = {name.removeprefix(_REGRESSION): array for name, array in tensors.items() if name.startswith(_REGRESSION)}
    targets = Targets(
        values=stored_array(tensors, "targets/node_values"),
        nodes=stored_array(tensors, "targets/nodes"),
        node_values=tensors["targets/node_values"],
        kind=str(described["targets"]["kind"]),
        centre=stored_number(described["targets"], "centre"),
        spread=stored_number(described["targets"], "spread"),
    )
    if targets.nodes.ndim != 1 or targets.nodes.shape != targets.node_values.shape or not len(targets.nodes):
        raise ValueError("the arrays of its targets do not belong together")
    fitted = FittedPredictor(
        described["version"], described["trained_on"], PredictorWeights(network, tuple(described["losses"]))
    )
    return PredictorModel(
        ModelDescription(
            described["space"],
            described["encoding_version"],
            tuple(described["vocabulary"]),
            settings,
            kind,
            Objective(**described["objective"]),
        ),
        fitted,
        Surrogate(regression.restore(described["regression"], arrays), targets, float(targets.values.max())),
    )


def _check_size(settings: PredictorSettings, size: int) -> None:
    """Checks what would take all memory only later; `size` is the number of weights."""
    units, layers = getattr(settings, "width", 1), getattr(settings, "layers", 1)
    inner = (layers - 1) * units**2
    if settings.kind == "mlp":
        inner = sum(a * b for a, b in pairwise(getattr(settings, "widths", ())))
    if settings.kind in ("gcn", "mlp", "lstm", "pyg") and settings.code is None and inner * settings.ensemble > size:
        raise ValueError("it has fewer weights than its settings say")
