"""The run of a search in MLflow, with a nested run for each predictor that it has trained.

Everything here can be done again: runs are found by their tags before they are made, so a search publishes after a
kill, or to a new tracking store, what is missing there and nothing twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bonas_core.methods.bonas.model import PredictorModel
from bonas_core.report.analysis import honest_correlation
from bonas_core.settings import Settings, leaves
from bonas_core.storage import Location, local_folder
from bonas_core.trials import Objective, Trial
from tasks.home.environment import local_service, local_tracking_uri, shown_uri
from tasks.home.search_folder import REPORT_NAME
from tasks.mlflow_store.client import experiment, found_runs, log_batch, log_settings
from tasks.mlflow_store.registry import (
    ARTIFACT_FOLDER,
    CHAMPION,
    PREDICTOR_TAG,
    VERSION_TAG,
    champion,
    has_score,
    record_score,
    registered_name,
    version_of_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_REPORT_FOLDER = "report"
_SEARCH_TAG = "bonas.search"
_FEWEST = 5  # trials behind an honest score


@dataclass(frozen=True)
class HonestScore:
    """Score of how well a predictor ranked trials that it had not seen: those that it proposed itself."""

    correlation: float
    """Spearman's rank correlation of predicted and found objective."""
    trials: int

    @property
    def bound(self) -> float:
        """Lower end of the correlation's one-standard-error interval (Fisher's z).

        Luck with few trials counts for less.
        """
        z = math.atanh(max(min(self.correlation, 0.999), -0.999))
        return math.tanh(z - 1 / math.sqrt(self.trials - 3))


def honest_score(trials: Sequence[Trial]) -> HonestScore | None:
    """Scores the predictor that proposed these trials, or None where they are fewer than 5 or do not vary."""
    found = honest_correlation(trials)
    if found.spearman is None or found.n < _FEWEST:
        return None
    return HonestScore(found.spearman, found.n)


@dataclass(frozen=True)
class Pages:
    """Pages of MLflow's UI on which people see a search."""

    run: str
    report: str
    """Page of the report, once it is published."""
    models: str
    """Page of the predictors of the space."""


def _ui(uri: str) -> str | None:
    """Finds the address of MLflow's UI for a tracking store; None for a database that no server of ours shows."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return shown_uri(uri).rstrip("/")
    return local_service("mlflow_url") if uri == local_tracking_uri() else None


class Tracker:
    """The MLflow side of one search."""

    def __init__(self, client: MlflowClient, settings: Settings, search_id: str, uid: str, space: str) -> None:
        """Finds or makes the run of a search, and looks what it holds already.

        Args:
            client: of the tracking server.
            settings: of the search.
            search_id: name of the run.
            uid: the search's own name in MLflow.
            space: name of the space.
        """
        self.client = client
        self.space = space
        self.search_id = search_id
        self._uid = uid
        self.uri: str = client.tracking_uri
        self.experiment_id = experiment(client, settings.tracking.experiment or f"bonas-{space}")
        self.run_id = self._parent(settings)
        self._published = self._known_predictors()
        self._logged = self._logged_trials()  # by number: in asynchronous mode they end in any order

    def pages(self) -> Pages | None:
        """Names the pages of the search, or None where no server shows it."""
        ui = _ui(self.uri)
        if ui is None:
            return None
        run = f"{ui}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        report = f"{run}/artifacts/{_REPORT_FOLDER}/{REPORT_NAME}"
        return Pages(run, report, f"{ui}/#/models/{registered_name(self.space)}")

    def is_published(self, version: str) -> bool:
        """Tells whether a predictor is registered already."""
        return version in self._published

    def publish_predictor(self, path: Location, model: PredictorModel) -> None:
        """Logs a predictor as a nested run and registers it as a model version, unless that has been done."""
        from mlflow.entities import Metric

        version = model.fitted.version
        if version in self._published:
            return
        run = self._nested_run(model)
        begun = run.info.start_time  # so that whoever publishes again what was cut off logs the same points
        losses = [Metric("loss", loss, begun, step) for step, loss in enumerate(model.fitted.weights.losses, start=1)]
        figures = {**model.surrogate.regression.figures(), "trained_on": float(model.fitted.trained_on)}
        metrics = losses + [Metric(key, value, begun, 0) for key, value in figures.items()]
        log_batch(self.client, run.info.run_id, metrics, dict(leaves(model.settings.model_dump(mode="json"))))
        with local_folder(path.parent) as folder:
            self.client.log_artifact(run.info.run_id, str(folder / path.name), ARTIFACT_FOLDER)
        registered = registered_name(self.space)
        registered_version = version_of_run(
            self.client,
            registered,
            run,
            ARTIFACT_FOLDER,
            {PREDICTOR_TAG: version, _SEARCH_TAG: self.search_id},
            f"{model.objective.name}, trained on {model.fitted.trained_on} trials of {self.search_id}",
        )
        if champion(self.client, registered) is None:
            self.client.set_registered_model_alias(registered, CHAMPION, registered_version.version)
        log_batch(self.client, run.info.run_id, tags={VERSION_TAG: str(registered_version.version)})
        self.client.set_terminated(run.info.run_id)
        self._published[version] = (run.info.run_id, str(registered_version.version))

    def score_predictor(self, version: str, score: HonestScore) -> bool:
        """Records the honest score of a predictor; the champion's alias moves to it if it is better.

        Returns:
            whether it moved.
        """
        if version not in self._published:
            return False
        run_id, number = self._published[version]
        registered = registered_name(self.space)
        if has_score(self.client, registered, number, score.bound):
            return False
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        figures = {
            "honest_spearman": score.correlation,
            "honest_trials": float(score.trials),
            "honest_score": score.bound,
        }
        log_batch(self.client, run_id, [Metric(key, value, now, score.trials) for key, value in figures.items()])
        return record_score(self.client, registered, number, score.bound)

    def log_trials(self, trials: Sequence[Trial], objective: Objective) -> None:
        """Adds finished trials to the parent run's curves, those excepted that this process or an earlier one added."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics: list[Metric] = []
        best: float | None = None
        for trial in trials:
            if trial.objective is None:
                continue
            best = trial.objective if best is None or objective.better(trial.objective, best) else best
            if trial.trial not in self._logged:
                metrics.append(Metric("objective", trial.objective, now, trial.trial))
                metrics.append(Metric("best_objective", best, now, trial.trial))
                if trial.images_per_second is not None:
                    metrics.append(Metric("images_per_second", trial.images_per_second, now, trial.trial))
        log_batch(self.client, self.run_id, metrics)
        self._logged |= {trial.trial for trial in trials}

    def log_forecast(self, seconds: float, trials: int) -> None:
        """Logs how long the search was expected to take when it had so many trials."""
        self.client.log_metric(self.run_id, "expected_s", seconds, step=trials)

    def publish_report(self, path: Location) -> None:
        """Puts the report beside the parent run, in place of an earlier one."""
        with local_folder(path.parent) as folder:
            self.client.log_artifact(self.run_id, str(folder / path.name), _REPORT_FOLDER)

    def set_state(self, state: str, figures: dict[str, float]) -> None:
        """Sets the parent run's status and closing figures."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        log_batch(self.client, self.run_id, [Metric(key, value, now, 0) for key, value in figures.items()])
        status = {"finished": "FINISHED", "failed": "FAILED"}.get(state, "SCHEDULED")
        self.client.set_terminated(self.run_id, status)

    def _nested_run(self, model: PredictorModel) -> Run:
        """Returns the run of a predictor: the one that a killed process began, or a new one."""
        version = model.fitted.version
        query = f"tags.`mlflow.parentRunId` = '{self.run_id}' and tags.`{PREDICTOR_TAG}` = '{version}'"
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        if found:
            return found[0]
        name = f"predictor on {model.fitted.trained_on} trials · {self.search_id}"  # lists cut names off
        tags = {"mlflow.parentRunId": self.run_id, PREDICTOR_TAG: version, _SEARCH_TAG: self._uid}
        return self.client.create_run(self.experiment_id, tags=tags, run_name=name)

    def _parent(self, settings: Settings) -> str:
        """Returns the id of the search's run: the one that it has, which runs again, or a new one."""
        query = f"tags.`{_SEARCH_TAG}` = '{self._uid}' and tags.`bonas.kind` = 'search'"
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        if found:
            run = found[0]
            self.client.update_run(run.info.run_id, "RUNNING")
        else:
            tags = {_SEARCH_TAG: self._uid, "bonas.kind": "search"}
            run = self.client.create_run(self.experiment_id, tags=tags, run_name=self.search_id)
        log_settings(self.client, run, settings.tree())
        return str(run.info.run_id)

    def _logged_trials(self) -> set[int]:
        return {metric.step for metric in self.client.get_metric_history(self.run_id, "objective")}

    def _known_predictors(self) -> dict[str, tuple[str, str]]:
        query = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        return {
            run.data.tags[PREDICTOR_TAG]: (run.info.run_id, run.data.tags[VERSION_TAG])
            for run in found_runs(self.client, self.experiment_id, query)
            if VERSION_TAG in run.data.tags
        }
