"""The open domain from end to end: search, final training of the best cells, transfer of the best to other data.

The three are the flows that `bonas search` and `bonas train` run, under ids made from one name, so each can also be
gone on with by itself. All state is in their folders: the same call goes on where it was, whichever step that was.
"""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from flows.running.presets import load_settings
from flows.search import search as search_flow
from flows.train import train


def _run_name() -> str:
    return str(flow_run.parameters["name"])


@flow(name="open-domain", flow_run_name=_run_name)
def open_domain(
    name: str,
    search: str = "cifar10-bonas",
    final: str = "cifar10-final",
    transfer: str | None = "imagenet-mobile",
    top: Annotated[int, Field(ge=1, le=1000)] = 1,
    seed: Annotated[int, Field(ge=0)] = 0,
    store: str | None = None,
) -> dict[str, Any]:
    """Search, train the best cells to the end, train the best of them on other data; the same call goes on.

    Args:
        name: of the whole; the steps are NAME-search, NAME-final and NAME-transfer.
        search: preset or settings file of the search.
        final: preset or settings file of the final training.
        transfer: preset or settings file of the training on other data; leave it empty to do without.
        top: cells of the search that get a final training.
        seed: of everything random.
        store: folder or s3://bucket/prefix; by default that of the worker's home.

    Returns:
        what each step that was reached came to; a search that is paused is not gone beyond.
    """
    # everything is read first: a misspelt preset must not be found after a week of search
    steps = {
        step: load_settings(source, seed=seed, store=store)[0]
        for step, source in (("search", search), ("final", final), ("transfer", transfer))
        if source is not None
    }
    found: dict[str, Any] = {"search": search_flow(steps["search"], search_id=f"{name}-search")}
    if found["search"]["state"] != "finished":
        return found
    found["final"] = train(steps["final"], source=f"{name}-search", top=top, training_id=f"{name}-final")
    if "transfer" in steps:
        found["transfer"] = train(steps["transfer"], source=f"{name}-final", training_id=f"{name}-transfer")
    return found
