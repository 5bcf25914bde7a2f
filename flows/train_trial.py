"""One trial as a flow: the unit that a search with `dispatch.backend: work-pool` gives to the workers of a pool.

A worker needs the search's folder at the same path, and the packages that the search needs; nothing else. The run takes
a slot of its machine (a GPU, where there are), trains in a process of its own, and leaves the result in the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.dispatch.assignment import Assignment
from tasks.dispatch.failure import unless_failed
from tasks.dispatch.supervisor import train_in_own_process


@flow(name="train-trial")
def train_trial(search: str, trial: Annotated[int, Field(ge=0)]) -> str:
    """Train one trial that a search has assigned; searches start this by themselves.

    Args:
        search: folder of the search.
        trial: number of the trial.

    Returns:
        how it ended.

    Raises:
        TrialFailedError: its last attempt failed.
    """
    ended = unless_failed(train_in_own_process(Assignment.of(Path(search), trial)))
    return f"trial {ended.trial} {ended.state}, objective {ended.objective}"
