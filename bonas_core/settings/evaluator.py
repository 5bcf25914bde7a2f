"""Settings of what evaluates an architecture: a table, a training, or an evaluator of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from bonas_core.settings.group import Group


class TableSettings(Group):
    """Look-up in a benchmark table."""

    model_config = ConfigDict(title="Table")

    kind: Literal["table"] = "table"
    table: str | None = Field(None, description="CSV or Parquet file, or the name of a prepared table")
    objective: str = Field("cifar10_val_200", description="column to optimise")
    test: str | None = Field(None, description="column to report on; the search never sees it")
    unit: Literal["percent", "fraction"] = Field("percent", description="of both columns")
    direction: Literal["maximise", "minimise"] = Field("maximise", description="which values are better")


class NetworkSettings(BaseModel):
    """The network that a cell is put in; other fields go to a network of your own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str | None = Field(None, description="by default the one that belongs to the space")
    channels: int = Field(4, ge=1, le=4096, description="channels of the first stage")
    cells: int = Field(1, ge=1, le=100, description="cells per stage; of the spaces nasnet, cells in all")


class AugmentationSettings(Group):
    """Random changes to training images."""

    crop: int = Field(0, ge=0, le=64, description="border, in pixels, out of which an image is cut at random; 0: none")
    flip: bool = Field(False, description="mirror every second image")
    cutout: int = Field(0, ge=0, le=512, description="side of the square that is blanked out; 0: none")
    resized_crop: float = Field(
        0.0, ge=0, le=1, description="least share of an image's area that is cut out and resized to the whole; 0: none"
    )
    brightness: float = Field(0.0, ge=0, le=1, description="brightness is multiplied by 1 +- this at random")
    contrast: float = Field(0.0, ge=0, le=1, description="contrast likewise")
    saturation: float = Field(0.0, ge=0, le=1, description="saturation likewise")
    hue: float = Field(0.0, ge=0, le=0.5, description="colours are turned by up to this share of a full turn")


class TrainingSettings(Group):
    """Real training of every architecture."""

    model_config = ConfigDict(title="Training")

    kind: Literal["training"] = "training"
    data: str = Field("digits", description="digits, prepared images such as cifar10, or module:object")
    validation_images: int | None = Field(
        None,
        ge=0,
        description="training images held out for the search, of prepared images; by default a tenth; 0, for final "
        "trainings only, trains on all",
    )
    train_images: int | None = Field(
        None, ge=1, description="training images to train on, of prepared images; by default all others"
    )
    augmentation: AugmentationSettings = Field(default_factory=lambda: AugmentationSettings())
    epochs: int = Field(10, ge=1, le=10_000, description="epochs of a training")
    batch_size: int = Field(128, ge=1, description="images per gradient step")
    learning_rate: float = Field(0.05, gt=0, description="of stochastic gradient descent, at its highest")
    schedule: Literal["cosine", "step"] = Field(
        "cosine", description="cosine: falls to 0 step by step; step: is multiplied by decay every decay_epochs"
    )
    decay: float = Field(0.97, gt=0, le=1, description="of the schedule `step`")
    decay_epochs: int = Field(1, ge=1, description="of the schedule `step`")
    warmup_epochs: int = Field(
        0, ge=0, description="epochs in which the learning rate rises linearly to its full value"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of stochastic gradient descent")
    nesterov: bool = Field(True, description="Nesterov's momentum")
    weight_decay: float = Field(5e-4, ge=0, description="weight of the penalty on squared weights")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient; by default any")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label that is spread over all classes")
    auxiliary_weight: float = Field(
        0.4, ge=0, description="of the loss of an auxiliary head, where the network has one"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: mixed precision, for GPUs that have it"
    )
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of a training, or of each of its processes")
    processes: int = Field(
        1, ge=1, le=64, description="that share every batch of a training; on GPUs, each has a GPU of its own"
    )
    compile: bool = Field(False, description="torch.compile: pays in long trainings on GPUs")
    network: NetworkSettings = Field(default_factory=lambda: NetworkSettings())


class CustomEvaluatorSettings(BaseModel):
    """An evaluator of your own: `kind` is module:object, everything else is passed to it."""

    model_config = ConfigDict(extra="allow", frozen=True, title="Your own")

    kind: str = Field(description="module:object")


KIND_ERROR = "kind_of_evaluator"
"""Type of pydantic's error where there is no such kind."""


def _kind(value: object) -> str | None:
    """The member of the union that a tree, or a group that was made before, belongs to; None where there is none."""
    kind = value.get("kind", "table") if isinstance(value, Mapping) else getattr(value, "kind", None)
    if kind in ("table", "training"):
        return str(kind)
    return "own" if isinstance(kind, str) and ":" in kind else None


EvaluatorSettings = Annotated[
    Annotated[TableSettings, Tag("table")]
    | Annotated[TrainingSettings, Tag("training")]
    | Annotated[CustomEvaluatorSettings, Tag("own")],
    Discriminator(
        _kind,
        custom_error_type=KIND_ERROR,
        custom_error_message="kind is not table, training or module:object",
    ),
]
"""One of the three, by `kind`."""
