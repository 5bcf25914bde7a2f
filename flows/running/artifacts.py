"""Prefect artifacts of a search: progress, leaderboard, and a summary that links to report and MLflow run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Coroutine
from uuid import UUID

from httpx import HTTPStatusError
from prefect.artifacts import Artifact, MarkdownArtifact, ProgressArtifact, TableArtifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from bonas_core.report.analysis import leaderboard
from bonas_core.search import SearchLog
from bonas_core.storage import Location
from bonas_core.trials import Objective
from tasks.mlflow_store.search_run import Pages

_EVERY_S = 5.0  # an artifact costs as much as a round of look-ups
_LEADERS = 20


class Artifacts:
    """Keeps the artifacts of one search up to date, at most every few seconds.

    Each is made once in a flow run and then changed in place, so that a page that is open can follow it.
    """

    def __init__(self, search_id: str, objective: Objective, budget: int, pages: Callable[[], Pages | None]) -> None:
        """Prepares the artifacts of a search; none is made yet.

        Args:
            search_id: name of the search.
            objective: of the search.
            budget: trials in all.
            pages: where MLflow shows the search, or None as long as that is not known; called at every refresh.
        """
        self._id = search_id
        self._key = re.sub(r"[^a-z0-9]+", "-", search_id.lower()).strip("-")
        self._objective = objective
        self._budget = budget
        self._pages = pages
        self._made: dict[str, UUID] = {}
        self._due = 0.0

    def update(self, log: SearchLog) -> None:
        """Refreshes the artifacts if they are due."""
        if time.monotonic() >= self._due:
            self._refresh(log, None)
            self._due = time.monotonic() + _EVERY_S

    def close(self, log: SearchLog, report: Location) -> None:
        """Leaves the final state, and where to read on."""
        self._refresh(log, report)

    def _refresh(self, log: SearchLog, report: Location | None) -> None:
        finished = sum(trial.state.is_finished for trial in log.rows)
        self._show(
            ProgressArtifact(
                key=f"progress-{self._key}",
                description=f"{finished} of {self._budget} trials of {self._id}",
                progress=min(100.0, 100.0 * finished / self._budget),
            )
        )
        self._show(
            TableArtifact(
                key=f"leaderboard-{self._key}",
                description=f"Best of {finished} trials of {self._id}: {self._objective.name}, {self._objective.unit}",
                table=self._leaders(log),
            )
        )
        self._show(
            MarkdownArtifact(
                key=f"summary-{self._key}",
                description=f"Summary of {self._id}",
                markdown=self._summary(log, finished, report),
            )
        )

    def _leaders(self, log: SearchLog) -> list[dict[str, object]]:
        return [
            {
                "rank": rank,
                "trial": trial.trial,
                "objective": _rounded(trial.objective),
                "test": _rounded(trial.metrics.get("test")),
                "predicted": _rounded(trial.predicted_mean),
                "architecture": f"`{trial.architecture}`",  # a cell is Markdown, to which ~ and | mean something
            }
            for rank, trial in enumerate(leaderboard(log.rows, self._objective)[:_LEADERS], start=1)
        ]

    def _summary(self, log: SearchLog, finished: int, report: Location | None) -> str:
        best, pages = log.best, self._pages()
        parts = [f"# {self._id}", f"{self._objective.name}, {finished} of {self._budget} trials."]
        if best is not None:
            shown = f"{best.objective:.4f} {self._objective.unit}"
            parts += [f"Best: **{shown}** (trial {best.trial})", f"`{best.architecture}`"]
        if pages is not None:
            parts.append(f"MLflow: [run of this search]({pages.run}) · [predictors]({pages.models})")
        if report is None:
            parts.append("Report: written when the search pauses or ends")
        else:
            page = f"[open]({pages.report}) · " if pages is not None else ""
            parts.append(f"Report: {page}`{report}`")
        return "\n\n".join(parts)

    def _show(self, artifact: Artifact) -> None:
        """Makes an artifact, or changes the one that this flow run has made."""
        made = self._made.get(str(artifact.key))
        if made is not None:
            try:
                with get_client(sync_client=True) as client:
                    data = artifact.format()
                    client.update_artifact(made, ArtifactUpdate(data=data, description=artifact.description))
                return
            except HTTPStatusError as error:
                if error.response.status_code != 404:
                    raise  # 404: another database, where it is made anew
        created = artifact.create()
        assert not isinstance(created, Coroutine)  # as it is where an event loop runs, which is not here
        assert isinstance(created.id, UUID)
        self._made[str(artifact.key)] = created.id


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
