"""Names in settings to objects: what ships with the project, entry points of other packages, or `module:object`."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from bonas_core.errors import SettingsError

_BUILT_IN = {
    "space": {
        "nasbench201": "bonas_core.spaces.nasbench201:NASBench201",
        "nasbench101": "bonas_core.spaces.nasbench101:NASBench101",
        "nasnet": "bonas_core.spaces.nasnet:NASNet",
        "nasnet-two-cells": "bonas_core.spaces.nasnet:TWO_CELLS",
        "nasnet-5-blocks": "bonas_core.spaces.nasnet:FIVE_BLOCKS",
        "nasnet-5-blocks-two-cells": "bonas_core.spaces.nasnet:FIVE_BLOCKS_TWO_CELLS",
        "nasnet-7-blocks": "bonas_core.spaces.nasnet:SEVEN_BLOCKS",
        "nasnet-7-blocks-two-cells": "bonas_core.spaces.nasnet:SEVEN_BLOCKS_TWO_CELLS",
    },
    "evaluator": {
        "table": "bonas_core.evaluators.table:TableEvaluator",
        "training": "bonas_core.image_training.evaluator:TrainingEvaluator",
    },
    "method": {
        "bonas": "bonas_core.methods.bonas.strategy:Bonas",
        "random": "bonas_core.methods.random_search:RandomSearch",
        "regularised-evolution": "bonas_core.methods.regularised_evolution:RegularisedEvolution",
        "local-search": "bonas_core.methods.local_search:LocalSearch",
        "bananas": "bonas_core.methods.bananas:Bananas",
        "weaknas": "bonas_core.methods.weaknas:WeakNAS",
        "linear": "bonas_core.methods.linear:Linear",
        "optuna-tpe": "bonas_core.methods.optuna:TPE",
        "optuna-gp": "bonas_core.methods.optuna:GP",
    },
    "sampler": {
        "evolution": "bonas_core.methods.samplers.evolution:EvolutionSampler",
        "random": "bonas_core.methods.samplers.random:RandomSampler",
        "exhaustive": "bonas_core.methods.samplers.exhaustive:ExhaustiveSampler",
        "reinforce": "bonas_core.methods.samplers.reinforce:ReinforceSampler",
    },
    "acquisition": {
        name: f"bonas_core.methods.bonas.acquisition:{function}"
        for name, function in {
            **{name: name for name in ("ei", "ucb", "thompson", "mean")},
            "pi": "probability_of_improvement",
        }.items()
    },
    "regression": {
        "blr": "bonas_core.methods.bonas.regression:LinearRegression",
        "gp": "bonas_core.methods.bonas.gaussian_process:GaussianProcess",
    },
    "predictor": {
        "gcn": "bonas_core.methods.bonas.predictors.settings:GCNSettings",
        "mlp": "bonas_core.methods.bonas.predictors.settings:MLPSettings",
        "lstm": "bonas_core.methods.bonas.predictors.settings:LSTMSettings",
        "pyg": "bonas_core.methods.bonas.predictors.settings:PyGSettings",
    },
    "data": {
        "digits": "bonas_core.image_training.datasets:digits",
    },
    "network": {
        "nasbench201": "bonas_core.networks.nasbench201:NASBench201Network",
        **dict.fromkeys(
            [f"nasnet{blocks}{cells}" for blocks in ("", "-5-blocks", "-7-blocks") for cells in ("", "-two-cells")],
            "bonas_core.networks.nasnet:cifar_network",
        ),
        "nasnet-imagenet": "bonas_core.networks.nasnet:imagenet_network",
    },
}


def names(kind: str) -> list[str]:
    """Registered names of a kind, entry points included.

    Args:
        kind: `space`, `evaluator`, `method`, `sampler`, `acquisition`, `regression`, `predictor`, `data` or `network`.
    """
    return sorted({*_BUILT_IN[kind], *(point.name for point in entry_points(group=f"bonas.{kind}"))})


def resolve(kind: str, name: str) -> Any:
    """The object behind a registered name or a `module:object`.

    Raises:
        SettingsError: there is no such name, module or object.
    """
    target = _BUILT_IN[kind].get(name)
    if target is None:
        for point in entry_points(group=f"bonas.{kind}", name=name):
            target = point.value
    if target is None:
        target = name
    if ":" not in target:
        raise SettingsError(f"{kind} `{name}` is unknown; use one of {', '.join(names(kind))}, or module:object")
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # TypeError: a relative module
        raise SettingsError(
            f"{kind} `{name}` cannot be loaded ({error}); check module and object of module:object"
        ) from None
    return found


def make(kind: str, name: str, settings: Any) -> Any:
    """Makes the object of a registered class, or of a `module:object`.

    A class that has `from_settings` is handed the settings; any other is called without arguments.

    Raises:
        SettingsError: there is no such name, or it cannot be made.
    """
    found = resolve(kind, name)
    if hasattr(found, "from_settings"):
        return found.from_settings(settings)
    try:
        return found()
    except TypeError as error:
        raise SettingsError(
            f"{kind} `{name}`: {error}; name a class that is made without arguments, or give it `from_settings`"
        ) from None
