"""Lines of a search in the log of its run, for people who follow it in Prefect's UI."""

from __future__ import annotations

import logging
from typing import cast

from prefect.logging import get_run_logger
from prefect.logging.loggers import PrefectLogAdapter
from prefect.runtime import deployment

from bonas_core.search import SearchLog
from bonas_core.settings import Settings
from bonas_core.trials import Trial, TrialState
from flows.running.observer import Observer, current_observer


class RunLog(Observer):
    """Writes a line for each trial that ends, and the warnings; made in the flow run whose log it is."""

    def __init__(self) -> None:
        """Makes a logger below that of the current flow run."""
        # with a level of its own: Prefect's lines about every task of every round are not wanted beside these
        self._logger = cast(PrefectLogAdapter, get_run_logger()).getChild("search")
        self._logger.setLevel(logging.INFO)
        self._log: SearchLog | None = None

    def started(self, search_id: str, settings: Settings, log: SearchLog) -> None:
        """Writes whether the search begins or goes on, and with how many trials."""
        self._log = log
        done = sum(trial.state.is_finished for trial in log.rows)
        verb = "goes on" if log.rows else "begins"
        self._logger.info("search %s %s: %d of %d trials", search_id, verb, done, settings.budget.trials)

    def stage(self, text: str) -> None:
        """Writes what has begun, unless that happens at every round."""
        if text != "choosing":
            self._logger.info("%s", text)

    def trial_finished(self, trial: Trial) -> None:
        """Writes how a trial ended."""
        if trial.state is not TrialState.DONE:
            self._logger.warning("trial %d %s: %s", trial.trial, trial.state, trial.error)
            return
        best = self._log.best if self._log is not None else None
        known = "" if best is None else f", best {best.objective:.4f} (trial {best.trial})"
        self._logger.info("trial %d: %.4f%s", trial.trial, trial.objective, known)

    def warning(self, text: str) -> None:
        """Writes a warning."""
        self._logger.warning("%s", text)


def watching() -> Observer:
    """Returns the observer of this context; in the run of a deployment, which has no terminal, the run's log."""
    observer = current_observer()
    return RunLog() if type(observer) is Observer and deployment.id is not None else observer
