"""The BONAS search as a Prefect flow.

The story of one search: open it (or go on with it), then round after round ask what to do next, until the budget is
spent. A round is a subflow of tasks: sample a pool, embed it, score expected improvement, train the picks, record them;
every k-th trial it retrains the predictor first, and a sampler that learns does so before its pool is drawn. The
history on disk is the only state: kill the process at any point, call the flow again with the same id, and it makes the
same trials as if nothing had happened.

    from flows.search import search
    search(Settings(...), search_id="my-search")
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from pydantic import Field

from bonas_core.errors import SearchLockedError
from bonas_core.methods.base import Proposal, Stage, carry_out, stages_of
from bonas_core.problem import Problem
from bonas_core.search import SearchLog, StopRule, next_step
from bonas_core.settings import Settings
from bonas_core.storage import make_folder, remove_folder, remove_unfinished, single_writer
from bonas_core.trials import Trial
from bonas_core.trials.history import TrialHistory
from flows.running.artifacts import Artifacts
from flows.running.continuing import default_id
from flows.running.dispatch import Dispatcher
from flows.running.forecast import forecast
from flows.running.interruption import raise_if_requested
from flows.running.opening import check_openable, keep_warm_start, manifest, new_uid
from flows.running.publishing import Publisher
from flows.running.recovery import mark_dead_runs
from flows.running.reporting import short_form, write_search_report
from flows.running.runlog import watching
from tasks.home.outage import OUTAGES, is_outage, reason_of, wait_for_server, watching_servers
from tasks.home.search_folder import SearchFolder, search_folder
from tasks.mlflow_store.client import named_uri
from tasks.round import record, run_stage


def _run_name() -> str:
    return str(flow_run.parameters.get("search_id") or "search")


@flow(name="search", flow_run_name=_run_name)
def search(
    settings: Settings,
    search_id: str | None = None,
    more_trials: Annotated[int, Field(ge=1)] | None = None,
    more_hours: Annotated[float, Field(gt=0)] | None = None,
) -> dict[str, Any]:
    """Search for an architecture; with the id of a search that exists, go on with it.

    Args:
        settings: what to search, how, and for how long.
        search_id: name of the search; by default made from space and settings.
        more_trials: pause after about so many further trials, whatever the budget of the search.
        more_hours: pause after so many hours.

    Returns:
        id, state, number of trials and the best of them.
    """
    folder = search_folder(search_id or default_id(settings.space, settings, overrides=True), settings.store)
    problem = check_openable(folder, settings)
    is_new = not folder.exists()
    make_folder(folder.path)
    with single_writer(folder.path):
        if is_new and folder.exists():
            raise SearchLockedError(f"search `{folder.id}` was started a moment ago by another process; run it again")
        budget = settings.budget.model_dump(mode="json")
        keep_warm_start(folder, problem)
        mark_dead_runs(folder.path, watching().warning)
        folder.write_state("running", "", budget)
        run = SearchRun(folder, problem, settings, Allowance(more_trials, more_hours))
        state, reason = "paused", "stopped"
        try:
            with watching_servers(named_uri(settings.tracking.uri), run.observer.warning):
                state, reason = run.until_done()
        except Exception as error:
            state, reason = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            folder.write_state(state, reason, budget)
            run.close(state)
    best = run.log.best
    return {
        "id": folder.id,
        "state": state,
        "reason": reason,
        "trials": len(run.log.rows),
        "best": None if best is None else {"architecture": best.architecture, "objective": best.objective},
    }


class Allowance:
    """What this process may spend on a search, which is then paused; a round that was begun is ended."""

    def __init__(self, trials: int | None = None, hours: float | None = None) -> None:
        self._trials = trials
        self._hours = hours
        self._began = time.monotonic()
        self._had: int | None = None

    def spent(self, trials: int) -> str | None:
        """Why the search is to be paused, given how many trials it has; the first call says with how many it began."""
        self._had = trials if self._had is None else self._had
        if self._trials is not None and trials - self._had >= self._trials:
            return f"{trials - self._had} trials were added, as many as allowed; the budget is not spent"
        if self._hours is not None and time.monotonic() - self._began >= 3600 * self._hours:
            return f"the {self._hours:g} hours allowed are over; the budget is not spent"
        return None


class SearchRun:
    """One search while this process works on it."""

    def __init__(self, folder: SearchFolder, problem: Problem, settings: Settings, allowance: Allowance) -> None:
        self.allowance = allowance
        self.folder = folder
        self.problem = problem
        self.settings = settings
        self.observer = watching()
        uid = folder.read()["uid"] if folder.exists() else new_uid()
        self.publisher = Publisher(folder, settings, uid, problem.space.name, problem.objective, self.observer.warning)
        if not folder.exists():
            folder.write(manifest(problem, settings, uid, self.publisher.ids()))
        self.history = TrialHistory(folder.trials)
        self.log = SearchLog(problem, self.history)
        for part in self.log.set_aside:
            self.observer.warning(f"history part set aside as `{part}`: it is damaged, its trials are done again")
        self.clear()
        self.rule = StopRule(problem)
        self.dispatcher = Dispatcher(problem, folder, self.observer)
        self.artifacts = Artifacts(folder.id, problem.objective, settings.budget.trials, self.publisher.pages)
        self._outages = self._rows_then = 0
        self.observer.started(folder.id, settings, self.log)
        self.forecast()

    def forecast(self) -> None:
        """Says on the terminal, to Prefect and to MLflow how long what is left will take, where that can be timed."""
        try:
            left = forecast(self.problem, self.log)
        except Exception as error:  # a trial that it happens to as well will say so
            self.observer.warning(f"how long the search will take is not known: {reason_of(error)}")
            return
        if left is not None:
            self.observer.forecast(str(left))
            get_run_logger().info(str(left))
            self.publisher.publish_forecast(left.seconds, len(self.log.rows))

    def clear(self) -> None:
        """Removes what a killed process left behind: half-written files, training state of trials that are recorded."""
        remove_unfinished(self.folder.path)
        wanted = {str(trial.trial) for trial in self.log.pending}
        for path in (*self.folder.checkpoints.glob("*"), *self.folder.dispatch.glob("*")):
            if path.name not in wanted:
                remove_folder(path)

    def until_done(self) -> tuple[str, str]:
        """Runs rounds until the budget is spent; the state of the search then, and why it stopped."""
        # a subflow's own heartbeat thread costs it a second; the search's heartbeat speaks for all its rounds
        with self.dispatcher, temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            while True:
                raise_if_requested()
                step = next_step(self.problem, self.log, self.rule)
                if step.stop:
                    return "finished", step.stop
                enough = self.allowance.spent(len(self.log.rows))
                if enough and not self.log.pending:
                    return "paused", enough
                number = step.evaluate[0].round if step.evaluate else self.log.rounds
                try:
                    # Prefect binds methods, which its types do not know
                    if not self.bo_round(self.folder.id, number, choose=not enough):  # type: ignore[call-overload]
                        return "finished", "the space has no more architectures"
                    self.artifacts.update(self.log)
                except Exception as error:
                    self.outlast(error)

    def outlast(self, error: Exception) -> None:
        """Waits for Prefect's server if that is what an error came from.

        What is recorded is recorded, and the round goes on.
        """
        self._outages = 0 if len(self.log.rows) > self._rows_then else self._outages + 1
        self._rows_then = len(self.log.rows)
        if not is_outage(error) or self._outages > OUTAGES:
            raise error
        self.observer.warning(f"Prefect: {reason_of(error)}; the search pauses until its server is back")
        wait_for_server(raise_if_requested)

    @flow(name="bo_round", flow_run_name="{search_id} · round {number}")
    def bo_round(self, search_id: str, number: int, choose: bool = True) -> int:
        """One BO round: choose, unless the round was begun before; train; record. Returns how many trials it ended.

        In synchronous mode it ends when all its trials have; in asynchronous mode when the first trial in flight has,
        whichever round that was proposed in.
        """
        step = next_step(self.problem, self.log, self.rule)
        if step.propose and choose:
            begin = time.perf_counter()
            proposals = self.choose(step.propose)
            if proposals:
                self.log.propose(proposals, time.perf_counter() - begin)
        pending = self.log.pending
        for trial in pending:
            self.dispatcher.submit(trial, self.run_name(trial))
        ends = pending if self.settings.dispatch.mode == "synchronous" else pending[:1]
        for _ in ends:
            self.record(self.dispatcher.wait())
        return len(ends)

    def choose(self, count: int) -> list[Proposal]:
        """Asks the strategy for the next trials; each of its stages is a task."""

        def run(stage: Stage) -> Any:
            self.observer.stage(str(stage))
            result = run_stage(stage)
            if stage.learns:
                self.publisher.publish(self.log.rows)
            return result

        strategy, trials, seed = self.problem.strategy, self.log.trials, self.settings.seed
        return carry_out(stages_of(strategy, trials, count, seed, self.folder.path), run)

    def run_name(self, trial: Trial) -> str:
        """What the run of a trial is called in Prefect."""
        operations = self.problem.space.architecture(self.log.trials.genotypes[trial.trial]).operations
        return f"trial {trial.trial} · {short_form(operations)}"

    def record(self, trial: Trial) -> None:
        """Records how a trial ended, then forgets its training state."""
        record.with_options(task_run_name=f"record trial {trial.trial} · {trial.state}")(self.log, trial)
        remove_folder(self.folder.checkpoints / str(trial.trial))
        remove_folder(self.folder.dispatch / str(trial.trial))
        self.history.compact_if_large()
        self.observer.trial_finished(trial)

    def close(self, state: str) -> None:
        """Writes the report, publishes what is left, leaves the last artifacts."""
        self.observer.stage("publishing")
        report = None
        try:
            if self.log.rows:
                report = write_search_report(self.folder, self.problem, self.log.rows, state)
        finally:
            self.publisher.close(self.log.rows, state, report)
        if report is not None:
            try:
                self.artifacts.close(self.log, report)
            except Exception as error:
                self.observer.warning(f"Prefect: {reason_of(error)}; its artifacts of this search are not up to date")
