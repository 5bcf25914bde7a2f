"""Ranking as a flow, for colleagues who have the UI or the API rather than a terminal."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from bonas_core.errors import SettingsError
from flows.running.ranking import rank

_SHOWN = 100


@flow(name="rank-architectures")
def rank_architectures(
    space: str = "nasbench201",
    architectures: list[str] | None = None,
    pool: Annotated[int, Field(ge=1, le=1_000_000)] | None = None,
    model: str | None = None,
    tracking_uri: str | None = None,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> dict[str, Any]:
    """Rank architectures by a registered predictor, without evaluating any.

    Args:
        space: registered name of a space, or module:object.
        architectures: as the space prints them; or leave them out and give a pool.
        pool: rank this many random architectures.
        model: models:/NAME@ALIAS or models:/NAME/VERSION; by default the space's champion.
        tracking_uri: MLflow server; by default that of the worker's home.
        seed: of the random pool.

    Returns:
        model, objective and the ranking, best first.
    """
    if bool(architectures) == (pool is not None):
        raise SettingsError("rank-architectures: give either architectures or a pool; one of them says what to rank")
    result = rank(space, architectures or [], pool or 0, model, tracking_uri, seed)
    create_table_artifact(
        result["ranking"][:_SHOWN],
        key=f"ranking-{space.lower().replace(':', '-').replace('_', '-').replace('.', '-')}",
        description=f"Predicted {result['objective']} ({result['unit']}) by {result['model']}",
    )
    return result
