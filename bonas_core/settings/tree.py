"""Settings of a search: one tree for YAML files, `--set a.b=value`, the form in the UI and MLflow parameters.

A recipe fills in what the tree leaves open; the tree that results is stored with the search, so that a later change
of a recipe cannot change a search that has begun.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bonas_core.errors import SettingsError, first_line
from bonas_core.registry import names

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    # as printed in the paper, sections 3 and 4.2; what it leaves open (initial weights, population) as in the original
    "paper": {
        "method": {
            "sampler": "evolution", "pool": 1000, "initial": 10, "retrain_every": 10, "retrain_growth": 0.0,
            "population": 30, "tournament": 10, "random_fraction": 0.0, "patience": 0,
        },
        "predictor": {
            "kind": "gcn", "layers": 4, "width": 64, "loss": "exp", "epochs": 100, "learning_rate": 1e-3,
            "batch_size": 128, "initialisation": "uniform", "readout": "global", "normalisation": "none",
            "ensemble": 1, "targets": "standardise", "intercept": "constant", "min_noise": 1e-4,
        },
    },
    # what needs the fewest samples of all that was measured; see docs/results.md
    "best": {
        "method": {
            "sampler": "auto", "pool": 1000, "initial": 5, "retrain_every": 10, "retrain_growth": 0.05,
            "population": 30, "tournament": 10, "random_fraction": 0.5, "patience": 25,
        },
        "predictor": {
            "kind": "gcn", "layers": 4, "width": 16, "loss": "mse", "epochs": 100, "learning_rate": 1e-2,
            "batch_size": 128, "initialisation": "he", "readout": "auto", "normalisation": "none",
            "ensemble": 4, "targets": "rank", "intercept": "centre", "min_noise": 0.1,
        },
    },
}  # fmt: skip
_PREDICTORS: dict[str, dict[str, Any]] = {
    # what the paper compares its predictor with, section 4.1; the rest is the recipe's
    "mlp": {"learning_rate": 1e-3},
    "lstm": {"width": 100, "learning_rate": 1e-3},
}
_NOT_OF_PREDICTORS = {
    "mlp": ("layers", "width", "initialisation", "readout", "normalisation"),
    "lstm": ("layers", "initialisation", "readout", "normalisation"),
}
"""Settings that a kind of predictor has no use for."""


EVOLUTION_PRESETS: dict[str, dict[str, Any]] = {
    # Real et al. (2019)
    "real": {"population": 100, "tournament": 25, "replacement": True, "mutation": "rewire"},
    # curves of the NAS-Bench-101 paper
    "nas-benchmarks": {"population": 100, "tournament": 10, "replacement": True, "mutation": "add-remove"},
    # notebook of the benchmark's own code
    "nasbench-notebook": {"population": 50, "tournament": 10, "replacement": False, "mutation": "flip"},
    # White et al. (2021); each edge flips with chance 1/21 there, 1/7 here
    "naszilla": {"population": 30, "tournament": 10, "replacement": True, "mutation": "flip"},
    # Dong & Yang (2020), on NAS-Bench-201: the operation of one edge
    "autodl": {"population": 10, "tournament": 3, "replacement": True, "mutation": None},
}
"""Regularised evolution as it was published. `replacement`: whether a trial may enter a tournament more than once;
`mutation`: the nearest rule of a space that has several. In all of them the oldest dies and a child differs."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _choice(kind: str, *others: str) -> Callable[[dict[str, Any]], None]:
    """Lets a form offer the registered names of a kind beside a field for `module:object`."""

    def offer(schema: dict[str, Any]) -> None:
        offered = {"title": "one of", "type": "string", "enum": [*names(kind), *others]}
        own = {"title": "module:object", "type": "string"}
        nothing = [option for option in schema.get("anyOf", ()) if option.get("type") == "null"]
        schema.pop("type", None)
        schema["anyOf"] = [offered, own, *nothing]

    return offer


class ControllerSettings(_Model):
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


class MethodSettings(_Model):
    """How architectures are chosen. Empty fields are filled in by the recipe."""

    name: str = Field(
        "bonas",
        description="bonas, random, regularised-evolution, local-search, bananas, weaknas, optuna-tpe, optuna-gp, or "
        "module:object",
        json_schema_extra=_choice("method"),
    )
    recipe: Literal["best", "paper"] = Field(
        "best", description="fills in all that is left empty here and in `predictor`"
    )
    sampler: str | None = Field(
        None,
        description=(
            "candidates: evolution, random, reinforce, exhaustive, auto (exhaustive in small spaces, else evolution)"
        ),
        json_schema_extra=_choice("sampler", "auto"),
    )
    pool: int | None = Field(None, ge=1, le=10_000_000, description="candidates scored at every step")
    initial: int | None = Field(None, ge=2, le=100_000, description="random trials that start the search")
    retrain_every: int | None = Field(None, ge=1, description="trials between retrainings of the predictor")
    retrain_growth: float | None = Field(
        None,
        ge=0,
        le=1,
        description="the same as a share of the trials that the predictor has seen; the larger of the two counts",
    )
    shortlist: int = Field(
        4096, ge=1, description="exhaustive sampler: candidates that are scored again between retrainings"
    )
    incumbent: Literal["observed", "posterior"] = Field(
        "observed",
        description="what expected improvement improves upon: the best objective or, where single evaluations are "
        "noisy, the best predicted mean of what was evaluated",
    )
    batch: int = Field(1, ge=1, le=10_000, description="trials chosen at once; 1 needs the fewest")
    preset: Literal["real", "nas-benchmarks", "nasbench-notebook", "naszilla", "autodl"] | None = Field(
        None,
        description="regularised evolution as it was published: fills in population and tournament, says how entrants "
        "are drawn, and sets the rule of mutation where the space has it",
    )
    population: int | None = Field(None, ge=2, description="trials alive in evolution")
    tournament: int | None = Field(None, ge=1, description="entrants of a tournament in evolution")
    random_fraction: float | None = Field(
        None, ge=0, le=1, description="share of an evolution pool that is drawn at random"
    )
    patience: int | None = Field(
        None, ge=0, description="trials without improvement after which every fourth trial is a random one; 0: never"
    )
    controller: ControllerSettings = Field(
        default_factory=lambda: ControllerSettings(), description="of the reinforce sampler"
    )
    mutation: str | None = Field(
        None, description="rule of mutation: rewire, add-remove or flip in nasbench101; by default the space's first"
    )
    repeats: bool = Field(False, description="regularised evolution only: may evaluate a cell again")
    move: Literal["best", "first"] = Field(
        "best", description="local search: to the best of all neighbours, or to the first that is better"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="passed to a method of your own")


class PredictorSettings(_Model):
    """What embeds architectures, and how it is trained. Empty fields are filled in by the recipe."""

    kind: str | None = Field(
        None, description="gcn, mlp, lstm, or module:object", json_schema_extra=_choice("predictor")
    )
    layers: int | None = Field(None, ge=1, le=64, description="layers of a gcn")
    width: int | None = Field(None, ge=1, le=4096, description="units of a layer")
    widths: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        (512, 2048, 2048, 512), min_length=1, max_length=64, description="units of the layers of an mlp"
    )
    loss: Literal["exp", "log", "linear", "mse"] | None = Field(None, description="weight of the squared errors")
    epochs: int | None = Field(None, ge=0, description="epochs per retraining")
    learning_rate: float | None = Field(None, gt=0, description="of Adam")
    batch_size: int | None = Field(None, ge=1, description="trials per gradient step")
    initialisation: Literal["uniform", "he"] | None = Field(None, description="of the weights of a gcn")
    readout: Literal["auto", "global", "vertices"] | None = Field(
        None, description="global vertex, all vertices side by side, or auto: by what the space allows"
    )
    normalisation: Literal["none", "row", "symmetric"] | None = Field(None, description="of the adjacency, paper Eq. 3")
    ensemble: int | None = Field(None, ge=1, le=64, description="networks trained together")
    targets: Literal["rank", "standardise", "logit"] | None = Field(
        None, description="transform of the scores to learn"
    )
    intercept: Literal["centre", "constant"] | None = Field(None, description="of the regression")
    min_noise: float | None = Field(
        None, gt=0, le=1, description="least noise of the regression, as a share of the targets' variance"
    )
    warm_start: str | None = Field(
        None,
        description="predictor whose weights every training starts from: models:/NAME@ALIAS, models:/NAME/VERSION, or "
        "a file",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="passed to a predictor of your own")


class TableSettings(_Model):
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


class AugmentationSettings(_Model):
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


class TrainingSettings(_Model):
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


def _evaluator(value: object) -> object:
    if isinstance(value, BaseModel) or not isinstance(value, Mapping):
        return value
    kind = value.get("kind", "table")
    known: dict[str, type[BaseModel]] = {"table": TableSettings, "training": TrainingSettings}
    if not isinstance(kind, str) or (kind not in known and ":" not in kind):
        raise ValueError(f"kind `{kind}` is not table, training or module:object")
    return known.get(kind, CustomEvaluatorSettings).model_validate(value)


class BudgetSettings(_Model):
    """When a search ends: at whichever comes first."""

    trials: int = Field(200, ge=1, description="trials in all, the initial ones counted")
    hours: float | None = Field(None, gt=0, description="hours of evaluating and choosing")
    stop_at: Annotated[float, Field(allow_inf_nan=False)] | Literal["optimum"] | None = Field(
        None,
        description="objective that is enough; `optimum`: the best of a closed table, which the method never knows",
    )


class DispatchSettings(_Model):
    """Where and how trials are evaluated."""

    backend: Literal["inline", "thread", "process", "dask", "ray", "work-pool"] = Field(
        "inline",
        description="inline: one after the other; thread: threads of the search's own process; process: a process for "
        "each slot; dask, ray: workers of a cluster; work-pool: each trial a run of the `train-trial` deployment",
    )
    slots: int = Field(1, ge=1, le=1024, description="trials evaluated at the same time")
    mode: Literal["synchronous", "asynchronous"] = Field(
        "synchronous",
        description="synchronous: a round's trials all end before the next are chosen; asynchronous: a trial is chosen "
        "as soon as a slot is free, with the others in flight",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU for each trial where the machine has GPUs and the evaluator is no table"
    )
    trial_timeout: float | None = Field(
        None, gt=0, description="seconds that an attempt at a trial may take; threads are stopped after an epoch only"
    )
    retries: int = Field(
        2, ge=0, le=100, description="further attempts after an error, before a trial counts as failed"
    )
    address: str | None = Field(
        None, description="of a Dask scheduler or Ray cluster; by default one is started on this machine"
    )
    deployment: str = Field("train-trial/train-trial", description="of the work-pool back end, as FLOW/DEPLOYMENT")


class TrackingSettings(_Model):
    """Where MLflow keeps predictors."""

    uri: str | None = Field(None, description="tracking server; by default SQLite beside the store")
    experiment: str | None = Field(None, description="by default bonas- and the space")


class Settings(_Model):
    """All settings of a search."""

    space: str = Field(
        "nasbench201", description="registered name or module:object", json_schema_extra=_choice("space")
    )
    evaluator: Annotated[TableSettings | TrainingSettings | CustomEvaluatorSettings, BeforeValidator(_evaluator)] = (
        Field(default_factory=lambda: TableSettings())
    )
    method: MethodSettings = Field(default_factory=lambda: MethodSettings())
    predictor: PredictorSettings = Field(default_factory=lambda: PredictorSettings())
    budget: BudgetSettings = Field(default_factory=lambda: BudgetSettings())
    dispatch: DispatchSettings = Field(default_factory=lambda: DispatchSettings())
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of everything random; the same seed makes the same search")
    store: str | None = Field(
        None, description="folder of searches or s3://bucket/prefix; by default ./.bonas/searches"
    )
    tracking: TrackingSettings = Field(default_factory=lambda: TrackingSettings())

    @model_validator(mode="before")
    @classmethod
    def _apply_recipe(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        filled = dict(tree)
        method = _as_tree(tree.get("method"))
        if method is None:
            return tree
        recipe = RECIPES.get(str(method.get("recipe", "best")))
        if recipe is None:
            return tree
        for part, defaults in recipe.items():
            given = _as_tree(tree.get(part))
            if given is None:
                return tree
            if part == "method":
                preset = EVOLUTION_PRESETS.get(str(given.get("preset")), {})
                defaults = {**defaults, **{name: preset[name] for name in ("population", "tournament") if preset}}
            if part == "predictor":
                defaults = _of_kind(defaults, str(given.get("kind") or defaults.get("kind")))
            filled[part] = {**given, **{key: value for key, value in defaults.items() if given.get(key) is None}}
        return filled

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.budget.stop_at == "optimum" and not isinstance(self.evaluator, TableSettings):
            raise ValueError("budget.stop_at: `optimum` is known for tables only; give a number")
        for name in _NOT_OF_PREDICTORS.get(str(self.predictor.kind), ()):
            if getattr(self.predictor, name) is not None:
                raise ValueError(f"predictor.{name}: is no setting of predictor `{self.predictor.kind}`; leave it out")
        return self

    def tree(self) -> dict[str, Any]:
        """The settings as a plain tree of YAML and JSON values."""
        return self.model_dump(mode="json")


def _of_kind(defaults: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What a recipe fills in for a kind of predictor."""
    left_out = _NOT_OF_PREDICTORS.get(kind, ())
    return {name: value for name, value in {**defaults, **_PREDICTORS.get(kind, {})}.items() if name not in left_out}


def _as_tree(part: object) -> dict[str, Any] | None:
    if part is None:
        return {}
    if isinstance(part, BaseModel):
        return part.model_dump()
    return dict(part) if isinstance(part, Mapping) else None


def parse_settings(tree: object, source: str) -> Settings:
    """Checks a tree of settings.

    Args:
        tree: what a YAML file holds.
        source: names it in messages.

    Raises:
        SettingsError: something is unknown, of the wrong type or out of range; the message names the first such
        setting.
    """
    if not isinstance(tree, Mapping):
        raise SettingsError(f"settings `{source}`: the top level is not a mapping; write `name: value` lines")
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(f"settings `{source}`: {_first_fault(error, tree)}") from None


_BRACKETS = re.compile(r"[][{}]")
_DEEPEST = 20  # groups of settings within groups
_MOST_NODES = 100_000  # values in a file, what an alias stands for counted every time
_UNION_MEMBERS = (  # pydantic puts the member of a union that it tried into the place of a fault
    TableSettings.__name__,
    TrainingSettings.__name__,
    CustomEvaluatorSettings.__name__,
    "float",
    "literal['optimum']",
)


def _first_fault(error: ValidationError, tree: Mapping[Any, Any]) -> str:
    fault = error.errors()[0]
    location = [part for part in fault["loc"] if part not in _UNION_MEMBERS]
    place = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        siblings = _siblings(location, tree)
        return f"`{place}` is not a setting; " + (f"use one of {', '.join(siblings)}" if siblings else "remove it")
    if fault["type"] == "model_type":
        return f"`{place}` is a group of settings; write `name: value` lines below it"
    message = fault["msg"].removeprefix("Value error, ")
    if location == ["budget", "stop_at"]:
        message = "input should be a finite number or `optimum`"
    message = message[0].lower() + message[1:]
    if not place:
        return message
    value = fault.get("input")
    shown = f" (it is `{value}`)" if isinstance(value, str | int | float) else ""
    return f"`{place}`: {message}{shown}"


def _siblings(location: Iterable[int | str], tree: Mapping[Any, Any]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in list(location)[:-1]:
        if part == "evaluator":
            training = dict(tree["evaluator"]).get("kind") == "training"
            model = TrainingSettings if training else TableSettings
            continue
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Reads a YAML mapping.

    Raises:
        SettingsError: it is not YAML, or not a mapping; the message names line and column.
    """
    try:
        tree = _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SettingsError(f"settings `{source}`: {place}not YAML ({error.problem}); correct that line") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise SettingsError(f"settings `{source}`: not YAML ({first_line(error)}); correct the file") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"settings `{source}`: the top level is not a mapping; write `name: value` lines")
    return tree


def _load_yaml(text: str) -> Any:
    """Reads YAML that is no larger, its aliases written out, than settings can be.

    Raises:
        ValueError: it is.
    """
    deepest = 0  # counted here first, since the parser takes time quadratic in it
    for match in _BRACKETS.finditer(text):
        deepest += 1 if match[0] in "[{" else -1
        if deepest > 10 * _DEEPEST:
            raise ValueError("nested too deeply")
    try:
        tree = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    left = _MOST_NODES
    stack = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        left -= 1
        if depth > _DEEPEST or left < 0:
            raise ValueError("nested too deeply" if depth > _DEEPEST else f"more than {_MOST_NODES} values")
        if isinstance(node, Mapping):
            stack += [(inner, depth + 1) for inner in (*node.keys(), *node.values())]
        elif isinstance(node, list | tuple | set):
            stack += [(inner, depth + 1) for inner in node]
    return tree


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree of settings, each with its dotted name."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def with_override(tree: Mapping[str, Any], assignment: str) -> dict[str, Any]:
    """A copy of a tree with one `a.b.c=value` put in; the value is read as YAML.

    Raises:
        SettingsError: the assignment has no `=`, no name, or leads through something that is not a mapping.
    """
    name, equals, text = assignment.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise SettingsError(f"--set `{assignment}`: write it as name=value, for instance budget.trials=50")
    try:
        value = _load_yaml(text) if text.strip() else None
    except (yaml.YAMLError, ValueError):
        shown = assignment if len(assignment) <= 200 else f"{assignment[:200]}..."
        raise SettingsError(f"--set `{shown}`: the value is not YAML; put quotes around it") from None
    result = dict(tree)
    inner = result
    for part in path[:-1]:
        below = inner.get(part)
        if below is not None and not isinstance(below, Mapping):
            raise SettingsError(
                f"--set `{assignment}`: `{part}` is a value, not a group of settings; set it as a whole"
            )
        inner[part] = dict(below or {})
        inner = inner[part]
    inner[path[-1]] = value
    return result
