"""Ranking of architectures with a registered predictor, without evaluating any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bonas_core.methods.base import initial_design
from bonas_core.problem import build_space
from bonas_core.spaces.base import distinct
from tasks.mlflow_store.registry import CHAMPION, load_registered, registered_name


def rank(
    space_name: str,
    architectures: Sequence[str],
    pool: int,
    model: str | None,
    tracking_uri: str | None,
    seed: int = 0,
) -> dict[str, Any]:
    """Ranks architectures, or a random pool of them where none are given, by predicted objective.

    Raises:
        InputError: space, architecture or model is unknown, or the model is of another space.
    """
    space = build_space(space_name)
    genotypes = space.parse(architectures) if architectures else initial_design(space, pool, seed)
    genotypes = genotypes[distinct(space.keys(genotypes), np.array([], dtype=np.uint64))]
    uri = model or f"models:/{registered_name(space.name)}@{CHAMPION}"
    loaded = load_registered(tracking_uri, uri)
    mean, std = loaded.predict(space, genotypes)
    sign = -1 if loaded.objective.direction == "maximise" else 1
    order = np.argsort(sign * mean, kind="stable")
    texts = space.format(genotypes[order])
    return {
        "model": uri,
        "predictor": loaded.fitted.version,
        "trained_on": loaded.fitted.trained_on,
        "objective": loaded.objective.name,
        "unit": loaded.objective.unit,
        "ranking": [
            {"rank": place, "predicted": float(mean[row]), "std": float(std[row]), "architecture": text}
            for place, (row, text) in enumerate(zip(order, texts, strict=True), start=1)
        ],
    }
