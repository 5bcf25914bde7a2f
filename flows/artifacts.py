"""Prefect artifacts of a search: progress, leaderboard, and a summary that links to report and MLflow run."""

from __future__ import annotations

import re
import time
from uuid import UUID

from httpx import HTTPStatusError
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from bonas_core.report.analysis import leaderboard
from bonas_core.search import SearchLog
from bonas_core.storage import Location
from bonas_core.trials import Objective

_EVERY_S = 5.0  # an artifact costs as much as a round of look-ups
_LEADERS = 20


class Artifacts:
    """Keeps the artifacts of one search up to date, at most every few seconds."""

    def __init__(self, search_id: str, objective: Objective, budget: int) -> None:
        self._id = search_id
        self._key = re.sub(r"[^a-z0-9]+", "-", search_id.lower()).strip("-")
        self._objective = objective
        self._budget = budget
        self._progress: UUID | None = None
        self._due = 0.0

    def update(self, log: SearchLog) -> None:
        """Refreshes progress and leaderboard if they are due."""
        if time.monotonic() >= self._due:
            self._refresh(log)
            self._due = time.monotonic() + _EVERY_S

    def close(self, log: SearchLog, report: Location) -> None:
        """Leaves the final state, and where to read on."""
        self._refresh(log)
        best = log.best
        lines = [f"# {self._id}", "", f"{self._objective.name}, {len(log.rows)} trials."]
        if best is not None:
            lines += ["", f"Best: **{best.objective:.4f}** (trial {best.trial})", "", f"`{best.architecture}`"]
        lines += ["", f"Report: `{report}`"]
        create_markdown_artifact("\n".join(lines), key=f"summary-{self._key}", description=f"Summary of {self._id}")

    def _refresh(self, log: SearchLog) -> None:
        finished = sum(trial.state.is_finished for trial in log.rows)
        progress = min(100.0, 100.0 * finished / self._budget)
        if self._progress is None:
            made = create_progress_artifact(
                progress, key=f"progress-{self._key}", description=f"Trials of {self._id}, of {self._budget}"
            )
            self._progress = made if isinstance(made, UUID) else None
        else:
            try:
                update_progress_artifact(self._progress, progress)
            except HTTPStatusError as error:
                if error.response.status_code != 404:
                    raise
                self._progress = None  # another database: begin anew
                return self._refresh(log)
        table = [
            {
                "rank": rank,
                "trial": trial.trial,
                "objective": trial.objective,
                "test": trial.metrics.get("test"),
                "predicted": trial.predicted_mean,
                "architecture": trial.architecture,
            }
            for rank, trial in enumerate(leaderboard(log.rows, self._objective)[:_LEADERS], start=1)
        ]
        create_table_artifact(table, key=f"leaderboard-{self._key}", description=f"Best trials of {self._id}")
