"""Prefect runs of a search that a dead process left behind.

A process that is killed leaves its flow and task runs RUNNING for ever. Each process notes its flow run in the search's
folder; the next one, which holds the search's lock and so knows that the one before is gone, marks those runs crashed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from bonas_core.errors import StoreError
from bonas_core.storage import Location, read_json, write_whole
from tasks.home.outage import reason_of

_FILE = "prefect.json"
_OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def mark_dead_runs(folder: Location, warn: Callable[[str], None]) -> None:
    """Marks the runs of earlier processes of a search crashed, and notes the current run; the caller holds the lock.

    A failure is worth a warning only: how runs look in Prefect stops no search.
    """
    try:
        current = _current_run()
        known = _noted(folder)
        if known:
            with get_client(sync_client=True) as client:
                for run_id in known:
                    if run_id != current:
                        _mark(client, run_id)
        write_whole(folder / _FILE, json.dumps({"flow_runs": [current] if current else []}).encode())
    except Exception as error:
        warn(f"Prefect: {reason_of(error)}; runs of an earlier process may still look alive")


def _mark(client: SyncPrefectClient, run_id: str) -> None:
    """Marks a flow run, its subflows and their tasks crashed where they are still open."""
    with suppress(ObjectNotFound):  # another database
        run = client.read_flow_run(UUID(run_id))
        children = _children(client, run.id)
        dead = [found for found in (run, *children) if found.state_type in _OPEN]
        for found in dead:
            client.set_flow_run_state(found.id, Crashed(message="its process is gone"), force=True)
        ids = [found.id for found in dead]
        if ids:
            state = TaskRunFilterState(type=TaskRunFilterStateType(any_=_OPEN))
            for task_run in client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)),
                task_run_filter=TaskRunFilter(state=state),
            ):
                client.set_task_run_state(task_run.id, Crashed(message="its process is gone"), force=True)


def _children(client: SyncPrefectClient, run_id: UUID) -> list[Any]:
    parent = FlowRunFilterParentFlowRunId(any_=[run_id])
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN))
    return list(client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent, state=state)))


def _noted(folder: Location) -> list[str]:
    try:
        return list(read_json(folder / _FILE)["flow_runs"])
    except (OSError, ValueError, KeyError, TypeError, StoreError):
        return []


def _current_run() -> str | None:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context is not None and context.flow_run is not None else None
