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

import shutil
import time
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from bonas_core.bonas import Bonas
from bonas_core.build import Problem
from bonas_core.errors import SearchLockedError
from bonas_core.history import TrialHistory
from bonas_core.search import SearchLog, StopRule, next_step
from bonas_core.settings import Settings
from bonas_core.storage import make_folder, remove_unfinished, single_writer
from bonas_core.strategy import Proposal
from bonas_core.trials import Trial
from flows.artifacts import Artifacts
from flows.dispatch import Dispatcher
from flows.interruption import raise_if_requested
from flows.observer import current_observer
from flows.opening import check_openable, default_id, keep_warm_start, manifest, new_uid
from flows.publishing import Publisher
from flows.reporting import short_form, write_search_report
from tasks.assignment import Assignment
from tasks.stages import (
    embed,
    predictor_path,
    propose,
    record,
    retrain_predictor,
    sample_pool,
    score_and_pick,
    update_sampler,
)
from tasks.workspace import SearchFolder, search_folder


def _run_name() -> str:
    return str(flow_run.parameters.get("search_id") or "search")


@flow(name="search", flow_run_name=_run_name)
def search(settings: Settings, search_id: str | None = None) -> dict[str, Any]:
    """Search for an architecture; with the id of a search that exists, go on with it.

    Args:
        settings: what to search, how, and for how long.
        search_id: name of the search; by default made from space and settings.

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
        folder.write_state("running", "", budget)
        run = SearchRun(folder, problem, settings)
        state, reason = "paused", "stopped"
        try:
            reason = run.until_done()
            state = "finished"
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


class SearchRun:
    """One search while this process works on it."""

    def __init__(self, folder: SearchFolder, problem: Problem, settings: Settings) -> None:
        self.folder = folder
        self.problem = problem
        self.settings = settings
        self.observer = current_observer()
        uid = folder.read()["uid"] if folder.exists() else new_uid()
        self.publisher = Publisher(folder, settings, uid, problem.space.name, problem.objective, self.observer.warning)
        if not folder.exists():
            folder.write(manifest(problem, settings, uid, self.publisher.ids()))
        self.history = TrialHistory(folder.trials)
        self.log = SearchLog(problem, self.history)
        self.clear()
        self.rule = StopRule(problem)
        self.dispatcher = Dispatcher(problem, folder, self.observer)
        self.artifacts = Artifacts(folder.id, problem.objective, settings.budget.trials)
        self.observer.started(folder.id, settings, self.log)

    def clear(self) -> None:
        """Removes what a killed process left behind: half-written files, training state of trials that are recorded."""
        remove_unfinished(self.folder.path)
        wanted = {str(trial.trial) for trial in self.log.pending}
        for path in (*self.folder.checkpoints.glob("*"), *self.folder.path.glob("dispatch/*")):
            if path.name not in wanted:
                shutil.rmtree(path, ignore_errors=True)

    def until_done(self) -> str:
        """Runs rounds until the budget is spent; says why it stopped."""
        # a subflow's own heartbeat thread costs it a second; the search's heartbeat speaks for all its rounds
        with self.dispatcher, temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            while True:
                raise_if_requested()
                step = next_step(self.problem, self.log, self.rule)
                if step.stop:
                    return step.stop
                number = step.evaluate[0].round if step.evaluate else self.log.rounds
                if not self.bo_round(self.folder.id, number):
                    return "the space has no more architectures"
                self.artifacts.update(self.log)

    @flow(name="bo_round", flow_run_name="{search_id} · round {number}")
    def bo_round(self, search_id: str, number: int) -> int:
        """One BO round: choose, unless the round was begun before; train; record. Returns how many trials it ended.

        In synchronous mode it ends when all its trials have; in asynchronous mode when the first trial in flight has,
        whichever round that was proposed in.
        """
        step = next_step(self.problem, self.log, self.rule)
        if step.propose:
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
        """Asks the strategy for the next trials, stage by stage where it has stages."""
        strategy, trials, seed = self.problem.strategy, self.log.trials, self.settings.seed
        if not isinstance(strategy, Bonas) or strategy.is_initial(trials):
            return propose(strategy, trials, count, seed)
        version, size = strategy.predictor_version(trials, seed), strategy.training_size(trials)
        if not strategy.has(version):
            self.observer.stage("retraining the predictor")
            retrain = retrain_predictor.with_options(task_run_name=f"retrain GCN on {size} trials")
            retrain(self.problem, strategy, trials, seed, predictor_path(self.folder.predictors, size, version))
            self.publisher.publish(self.log.rows)
        self.observer.stage("choosing")
        fitted = strategy.fit_predictor(trials, seed)
        if strategy.sampler_learns:
            update_sampler(strategy, trials, seed, self.folder.samplers)
        pool = sample_pool(strategy, trials, seed)
        embedded = embed(strategy, trials, pool, fitted)
        return score_and_pick(strategy, trials, embedded, fitted, count, seed)

    def run_name(self, trial: Trial) -> str:
        """What the run of a trial is called in Prefect."""
        operations = self.problem.space.architecture(self.log.trials.genotypes[trial.trial]).operations
        return f"trial {trial.trial} · {short_form(operations)}"

    def record(self, trial: Trial) -> None:
        """Records how a trial ended, then forgets its training state."""
        record.with_options(task_run_name=f"record trial {trial.trial} · {trial.state}")(self.log, trial)
        shutil.rmtree(self.folder.checkpoints / str(trial.trial), ignore_errors=True)
        Assignment.of(self.folder.path, trial.trial).remove()
        self.history.compact_if_large()
        self.observer.trial_finished(trial)

    def close(self, state: str) -> None:
        """Publishes what is left, writes the report, leaves the last artifacts."""
        self.observer.stage("publishing")
        self.publisher.close(self.log.rows, state)
        if self.log.rows:
            report = write_search_report(self.folder, self.problem, self.log.rows, state)
            self.artifacts.close(self.log, report)
