"""Publication to MLflow beside a search, in a thread of its own: a slow or absent server never holds it up.

The search folder holds everything that is published. Whatever a failure or a kill left unpublished is published the
next time, and nothing twice.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from bonas_core.errors import first_line
from bonas_core.methods.bonas.model import FILE_NAME, read_model
from bonas_core.report.analysis import summary
from bonas_core.settings import Settings
from bonas_core.storage import Location
from bonas_core.trials import Objective, Trial
from tasks.home.search_folder import SearchFolder
from tasks.mlflow_store.client import connect
from tasks.mlflow_store.search_run import HonestScore, Pages, Tracker, honest_score

_log = logging.getLogger("bonas")


class Publisher:
    """Publishes one search."""

    def __init__(
        self,
        folder: SearchFolder,
        settings: Settings,
        uid: str,
        space: str,
        objective: Objective,
        warn: Callable[[str], None],
    ) -> None:
        """Opens the search's run in MLflow, in the publisher's own thread.

        Args:
            folder: the search.
            settings: say which tracking server and experiment.
            uid: the search's own name in MLflow.
            space: name of the space.
            objective: of the search.
            warn: called once, with one line, when the tracking server cannot be reached.
        """
        self._folder = folder
        self._settings = settings
        self._uid = uid
        self._space = space
        self._objective = objective
        self._warn = warn
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publisher")
        self._tracker: Tracker | None = None
        self._scores: dict[str, HonestScore] = {}
        self._warned = False
        self._opened = self._thread.submit(self._guarded, self._open)

    def ids(self) -> dict[str, str]:
        """Names where MLflow keeps the search; empty if it cannot be reached."""
        self._opened.result()
        tracker = self._tracker
        if tracker is None:
            return {}
        return {"uri": tracker.uri, "experiment_id": tracker.experiment_id, "run_id": tracker.run_id}

    def publish(self, trials: Sequence[Trial]) -> Future[None]:
        """Queues what is new: predictors, their honest scores, the curve of the search."""
        return self._thread.submit(self._guarded, self._publish, list(trials))

    def publish_forecast(self, seconds: float, trials: int) -> None:
        """Queues how long a search that has so many trials will take from now on."""
        self._thread.submit(self._guarded, lambda: self._open_tracker().log_forecast(seconds, trials))

    def pages(self) -> Pages | None:
        """Names the pages of the search in MLflow.

        Returns:
            the pages, or None as long as MLflow has not answered, and where no server shows them.
        """
        tracker = self._tracker
        return None if tracker is None else tracker.pages()

    def close(self, trials: Sequence[Trial], state: str, report: Location | None) -> None:
        """Publishes the rest, the report and the state of the search, and waits for it."""
        self.publish(trials)
        if report is not None:
            self._thread.submit(self._guarded, self._publish_report, report)
        self._thread.submit(self._guarded, self._set_state, list(trials), state)
        self._thread.shutdown(wait=True)

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            if self._tracker is None and work != self._open:
                self._open()
            work(*arguments)
            self._warned = False
        except Exception as error:  # whatever a tracking server does, the search goes on
            _log.debug("publishing failed", exc_info=True)
            # looked up anew the next time: it may come back as another store, which then lacks everything
            self._tracker, self._scores = None, {}
            if not self._warned:
                self._warned = True
                reason = first_line(error)
                self._warn(f"MLflow: {reason[:300]}; the search goes on, what is missing is published later")

    def _open(self) -> None:
        client = connect(self._settings.tracking.uri)
        self._tracker = Tracker(client, self._settings, self._folder.id, self._uid, self._space)

    def _publish(self, trials: list[Trial]) -> None:
        tracker = self._open_tracker()
        paths: list[Location] = sorted(self._folder.predictors.glob(f"*/{FILE_NAME}"))
        for path in paths:
            if not tracker.is_published(path.parent.name.rpartition("-")[2]):
                tracker.publish_predictor(path, read_model(path))
        by_version: dict[str, list[Trial]] = defaultdict(list)
        for trial in trials:
            if trial.predictor_version:
                by_version[trial.predictor_version].append(trial)
        for version, predicted in by_version.items():
            score = honest_score(predicted)
            if score and self._scores.get(version) != score:
                tracker.score_predictor(version, score)
                self._scores[version] = score
        tracker.log_trials([trial for trial in trials if trial.state.is_finished], self._objective)

    def _publish_report(self, report: Location) -> None:
        self._open_tracker().publish_report(report)

    def _set_state(self, trials: list[Trial], state: str) -> None:
        found = summary(trials, self._objective)
        figures = {
            "evaluations": float(found.evaluations),
            "distinct": float(found.distinct),
            "surrogate_s": found.surrogate_s,
            "evaluation_s": found.evaluation_s,
        }
        if found.best is not None and found.best.objective is not None:
            figures["best"] = found.best.objective
        self._open_tracker().set_state(state, figures)

    def _open_tracker(self) -> Tracker:
        assert self._tracker is not None
        return self._tracker
