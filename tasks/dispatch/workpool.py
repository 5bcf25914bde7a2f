"""Trials as runs of a deployment: started through Prefect, trained wherever a worker of its work pool runs.

What counts is the assignment's folder: a run that Prefect has lost sight of still delivers its result there, and a run
that Prefect believes in but nobody executes is found by its free lock, marked as crashed and replaced. So the Prefect
server may be away, be restarted, or be replaced by an empty one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from threading import Event
from typing import Any
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from bonas_core.errors import SearchError, SettingsError, TrialStoppedError
from bonas_core.search import failed
from bonas_core.storage import write_whole
from bonas_core.trials import Trial
from tasks.dispatch.assignment import Assignment
from tasks.dispatch.failure import unless_failed
from tasks.dispatch.supervisor import OnEvent, ignore
from tasks.home.outage import is_outage, reason_of
from tasks.home.search_folder import SearchFolder

_LOOK_EVERY_S = 0.5  # at the folder
_ASK_EVERY_S = 2.0  # Prefect
_ASK_WORKERS_EVERY_S = 15.0
_UNHELD_S = 10.0
"""A run that is RUNNING takes the trial's lock within a second; one that has not so much later is dead."""
_PENDING_S = 60.0
"""A worker that took a run and died leaves it PENDING. One that only is slow does no harm: the second trainer of a
trial waits for the first."""
_DEATHS = 10
"""Runs of a trial that end without a result and without a finished epoch, before something else must be wrong."""


def check_deployment(name: str) -> None:
    """Raises SettingsError unless the server has the deployment."""
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(name)
        except (ObjectNotFound, ValueError):
            raise SettingsError(
                f"dispatch.deployment: Prefect has no deployment `{name}` at {client.api_url}; run `bonas deploy`"
            ) from None


@task(name="train", cache_policy=NO_CACHE)
def train_on_work_pool(
    assignment: Assignment,
    run_name: str,
    on_event: OnEvent = ignore,
    stop: Event | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Trial:
    """Have one trial evaluated by a run of the `train-trial` deployment, by whichever worker takes it.

    Raises:
        TrialFailedError: its last attempt failed.
        SearchError: runs of the deployment end before they begin.
    """
    return unless_failed(_DeployedTrial(assignment, run_name, warn).result(on_event, stop))


class _DeployedTrial:
    """One trial on a work pool, while this process waits for it."""

    def __init__(self, assignment: Assignment, run_name: str, warn: Callable[[str], None]) -> None:
        self._assignment = assignment
        self._name = run_name
        self._warn = warn
        self._settings, self._trial = assignment.read_order()
        self._uid = str(SearchFolder(assignment.search).read()["uid"])
        self._submission, self._run_id = self._read_run()
        self._state = ""
        self._since = time.monotonic()
        self._begun = assignment.is_trained()
        self._deaths = 0
        self._progress = 0
        self._warned = False
        self._workers_asked = 0.0

    def result(self, on_event: OnEvent, stop: Event | None) -> Trial:
        """Waits for the trial to end; a run that is under way from before is taken up."""
        asked = 0.0
        while True:
            result = self._assignment.read_result()
            if result is not None:
                return result
            if stop is not None and stop.is_set():
                self._cancel()
                raise TrialStoppedError(f"trial {self._trial.trial} was given up")
            if self._assignment.is_trained() and not self._begun:
                self._begun = True
                on_event({"event": "attempt", "attempt": 1})
            if time.monotonic() - asked >= _ASK_EVERY_S:
                result = self._look()
                if result is not None:
                    return result
                asked = time.monotonic()
            time.sleep(_LOOK_EVERY_S)

    def _look(self) -> Trial | None:
        """Asks Prefect about the run, and replaces one that is dead; a result where there is no point in going on."""
        try:
            if self._run_id is None:
                self._submit()
                return None
            with get_client(sync_client=True) as client:
                return self._follow(client, self._run_id)
        except Exception as error:
            if not is_outage(error):
                raise
            if not self._warned:
                self._warned = True
                self._warn(f"Prefect: {reason_of(error)}; trials in flight go on, no new ones start until it is back")
            return None

    def _follow(self, client: SyncPrefectClient, run_id: UUID) -> Trial | None:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:  # another database
            return None if self._assignment.is_trained() else self._replace(None, client)
        self._warned = False
        state = (run.state.name if run.state else None) or "Scheduled"
        if state != self._state:
            self._state, self._since = state, time.monotonic()
        if self._assignment.is_trained() or self._assignment.read_result() is not None:
            self._since = time.monotonic()
            return None
        here_s = time.monotonic() - self._since
        kind = run.state_type.value if run.state_type else "SCHEDULED"
        if kind in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return self._replace(run, client)
        if (kind in ("RUNNING", "CANCELLING") and here_s > _UNHELD_S) or (kind == "PENDING" and here_s > _PENDING_S):
            client.set_flow_run_state(run_id, Crashed(message="nobody executes this run any more"), force=True)
            return self._replace(run, client)
        if kind in ("SCHEDULED", "PENDING"):
            self._say_why(client, run)
        return None

    def _replace(self, run: FlowRun | None, client: SyncPrefectClient) -> Trial | None:
        """Submits the trial again, unless that has been done too often."""
        epochs = (self._assignment.search / "checkpoints" / str(self._trial.trial)).glob("*")
        progress = max((path.stat().st_mtime_ns for path in epochs), default=0)
        self._deaths = 1 if progress > self._progress else self._deaths + 1
        self._progress = progress
        if self._deaths >= _DEATHS and not self._begun:
            state = run.state if run else None
            raise SearchError(
                f"runs of deployment `{self._settings.dispatch.deployment}` end before they begin "
                f"({state.name if state else 'gone'}: {state.message if state else ''}); see them in Prefect's UI, "
                f"then go on with `bonas resume {self._assignment.search.name}`"
            )
        if self._deaths >= _DEATHS:
            error = RuntimeError(f"the trial's run died {self._deaths} times without finishing an epoch")
            result = failed(self._trial, error, self._settings.dispatch.retries + 1, 0.0)
            self._assignment.write_result(result)
            return result
        self._submit()
        return None

    def _submit(self) -> None:
        self._submission += 1
        self._write_run(None)
        run = run_deployment(
            self._settings.dispatch.deployment,
            parameters={"search": str(self._assignment.search), "trial": self._trial.trial},
            flow_run_name=self._name,
            timeout=0,
            tags=[f"search:{self._assignment.search.name}"],
            # asked twice because the answer was lost, the server makes one run
            idempotency_key=f"{self._uid}-{self._trial.trial}-{self._submission}",
            as_subflow=False,
        )
        assert isinstance(run, FlowRun)
        self._write_run(run.id)
        self._state, self._since = "", time.monotonic()

    def _say_why(self, client: SyncPrefectClient, run: FlowRun) -> None:
        if time.monotonic() - self._workers_asked < _ASK_WORKERS_EVERY_S:
            return
        self._workers_asked = time.monotonic()
        pool = run.work_pool_name or "?"
        workers = client.read_workers_for_work_pool(pool)
        online = sum(worker.status == "ONLINE" for worker in workers)
        state = run.state.name if run.state else "Scheduled"
        reason = f"for a worker of work pool `{pool}`: {online or 'none'} online, run `{run.name}` is {state}"
        if not online:
            reason += f"; start one with `prefect worker start --pool {pool}`"
        self._assignment.write_status("waiting", reason=reason, flow_run=str(run.id))

    def _cancel(self) -> None:
        try:
            if self._run_id is not None:
                with get_client(sync_client=True) as client:
                    client.set_flow_run_state(self._run_id, Cancelling(message="the search was stopped"))
        except Exception as error:
            self._warn(f"Prefect: {reason_of(error)}; the run of trial {self._trial.trial} may go on")

    def _read_run(self) -> tuple[int, UUID | None]:
        try:
            run: dict[str, Any] = json.loads((self._assignment.folder / "run.json").read_text())
            return int(run["submission"]) - (run["flow_run"] is None), run["flow_run"] and UUID(run["flow_run"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, None

    def _write_run(self, run_id: UUID | None) -> None:
        self._run_id = run_id
        run = {"submission": self._submission, "flow_run": None if run_id is None else str(run_id)}
        write_whole(self._assignment.folder / "run.json", json.dumps(run).encode())
