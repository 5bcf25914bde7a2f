"""Settings of the predictors that ship; each makes its predictor, and loads what it needs only then."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bonas_core.errors import SettingsError
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import SearchSpace

_FITTING = ("epochs", "learning_rate", "batch_size", "ensemble")


class GCNSettings(PredictorSettings):
    """The graph convolutional network of the paper."""

    kind: Literal["gcn"] = "gcn"
    layers: int = Field(4, ge=1, le=64, description="graph convolutions")
    width: int = Field(16, ge=1, le=4096, description="units of a layer")
    initialisation: Literal["uniform", "he"] = Field("he", description="of the weights")
    readout: Literal["auto", "global", "vertices"] = Field(
        "auto", description="global vertex, all vertices side by side, or auto: by what the space allows"
    )
    normalisation: Literal["none", "row", "symmetric"] = Field("none", description="of the adjacency, paper Eq. 3")

    shape: ClassVar[tuple[str, ...]] = ("kind", "layers", "width", "readout", "ensemble")

    def build(self, space: SearchSpace) -> Any:
        """Makes the predictor.

        Raises:
            SettingsError: vertices of the space have no fixed roles, so that they cannot stand side by side.
        """
        from bonas_core.methods.bonas.predictors.gcn import GCN

        own = self.model_dump(include={"layers", "width", "normalisation", "initialisation", *_FITTING})
        return GCN(readout=readout_of(self.readout, space), **own)


class MLPSettings(PredictorSettings):
    """The multi-layer perceptron on flattened graphs that the paper compares with (section 4.1)."""

    kind: Literal["mlp"] = "mlp"
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    widths: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        (512, 2048, 2048, 512), min_length=1, max_length=64, description="units of the layers"
    )

    shape: ClassVar[tuple[str, ...]] = ("kind", "widths", "ensemble")

    def build(self, space: SearchSpace) -> Any:
        """Makes the predictor."""
        from bonas_core.methods.bonas.predictors.mlp import MLP

        return MLP(**self.model_dump(include={"widths", *_FITTING}))


class LSTMSettings(PredictorSettings):
    """The recurrent network on graphs as sequences that the paper compares with (section 4.1)."""

    kind: Literal["lstm"] = "lstm"
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    width: int = Field(100, ge=1, le=4096, description="units of the layer")

    shape: ClassVar[tuple[str, ...]] = ("kind", "width", "ensemble")

    def build(self, space: SearchSpace) -> Any:
        """Makes the predictor."""
        from bonas_core.methods.bonas.predictors.lstm import LSTM

        return LSTM(**self.model_dump(include={"width", *_FITTING}))


class PyGSettings(PredictorSettings):
    """Any graph network of torch-geometric, or one of your own."""

    kind: Literal["pyg"] = "pyg"
    model: str = Field(
        "GIN",
        description="of torch_geometric.nn.models: GCN, GIN, GAT, GraphSAGE, PNA, EdgeCNN; or module:object, a torch "
        "module over a `Batch`",
    )
    layers: int = Field(4, ge=1, le=64, description="graph convolutions")
    width: int = Field(16, ge=1, le=4096, description="units of a layer")
    readout: Literal["auto", "global", "vertices", "mean"] = Field(
        "auto", description="global vertex, all vertices side by side, their mean, or auto: by what the space allows"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the model, such as heads of a GAT")

    shape: ClassVar[tuple[str, ...]] = ("kind", "model", "layers", "width", "readout", "options", "ensemble")

    @property
    def code(self) -> str | None:
        """The model where it is one of your own."""
        return self.model if ":" in self.model else None

    def build(self, space: SearchSpace) -> Any:
        """Makes the predictor.

        Raises:
            SettingsError: there is no such model, it cannot be made with these options, or the readout is not one for
                the space.
        """
        from bonas_core.methods.bonas.predictors.pyg import PyG

        own = self.model_dump(include={"model", "layers", "width", "options", *_FITTING})
        predictor = PyG(readout=readout_of(self.readout, space), **own)
        predictor.check(space.encode(space.sample(2, np.random.default_rng(0))))
        return predictor


def readout_of(readout: str, space: SearchSpace) -> str:
    """The readout that `auto` stands for in a space, or the one that is named.

    Raises:
        SettingsError: vertices of the space have no fixed roles, so that they cannot stand side by side.
    """
    if readout == "auto":
        return "vertices" if space.positional else "global"
    if readout == "vertices" and not space.positional:
        raise SettingsError(
            f"predictor.readout: vertices of space `{space.name}` have no fixed roles, so their features cannot stand "
            "side by side; use global"
        )
    return readout
