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
        "bonas": "bonas_core.build:bonas",
        "random": "bonas_core.build:random_search",
        "regularised-evolution": "bonas_core.build:regularised_evolution",
        "local-search": "bonas_core.build:local_search",
        "bananas": "bonas_core.build:bananas",
        "weaknas": "bonas_core.build:weaknas",
        "optuna-tpe": "bonas_core.build:optuna_tpe",
        "optuna-gp": "bonas_core.build:optuna_gp",
    },
    "sampler": {
        "evolution": "bonas_core.build:evolution_sampler",
        "random": "bonas_core.build:random_sampler",
        "exhaustive": "bonas_core.build:exhaustive_sampler",
        "reinforce": "bonas_core.build:reinforce_sampler",
    },
    "predictor": {
        "gcn": "bonas_core.build:gcn",
        "mlp": "bonas_core.build:mlp",
        "lstm": "bonas_core.build:lstm",
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
        kind: `space`, `evaluator`, `method`, `sampler`, `predictor`, `data` or `network`.
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
