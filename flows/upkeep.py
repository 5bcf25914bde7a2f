"""What runs by the clock: every night the open searches go on, every week the predictor of a space is refreshed."""

from __future__ import annotations

import time
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from bonas_core.errors import BonasError
from bonas_core.history import TrialHistory
from bonas_core.storage import is_locked, store_folder
from flows.opening import stored_settings
from flows.search import search
from tasks.workspace import SearchFolder, default_store, searches


@flow(name="continue-searches")
def continue_searches(
    store: str | None = None,
    trials: Annotated[int, Field(ge=1)] | None = None,
    hours: Annotated[float, Field(gt=0)] | None = None,
) -> dict[str, Any]:
    """Go on with every open search of a store, within a budget that they share.

    What a search does not use of its equal share goes to those after it; the one that has fewest trials comes first.
    A search that fails does not keep the others from going on.

    Args:
        store: folder of searches; by default that of the worker's home.
        trials: further trials in all.
        hours: hours in all.

    Returns:
        for each search its state and how many trials it gained.
    """
    logger = get_run_logger()
    folder = store_folder(store) if store else default_store()
    waiting = sorted((found for found in searches(folder) if _is_open(found)), key=_size)
    deadline = None if hours is None else time.monotonic() + 3600 * hours
    left, gained = trials, {}
    for place, found in enumerate(waiting):
        others = len(waiting) - place
        share = None if left is None else -(-left // others)
        hours_left = None if deadline is None else (deadline - time.monotonic()) / 3600 / others
        if share == 0 or (hours_left is not None and hours_left <= 0):
            break
        before = _size(found)
        try:
            settings = stored_settings(found.id, str(folder), None)
            search(settings, search_id=found.id, more_trials=share, more_hours=hours_left)
        except BonasError as error:
            logger.warning("search %s: %s", found.id, error)
        except Exception:
            logger.exception("search %s failed; the others go on", found.id)
        gained[found.id] = {"state": found.state(), "gained": _size(found) - before}
        left = None if left is None else max(0, left - (_size(found) - before))
        logger.info("search %s: %s", found.id, gained[found.id])
    return gained


def _is_open(found: SearchFolder) -> bool:
    return not is_locked(found.path) and found.state() != "finished"


def _size(found: SearchFolder) -> int:
    return len(TrialHistory(found.trials).trials())
