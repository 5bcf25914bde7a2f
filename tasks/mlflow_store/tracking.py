"""MLflow: a parent run per search, a nested run and a model version per predictor, and the champion among them.

Everything here can be done again: runs are found by their tags before they are made, so a search publishes after a
kill, or to a new tracking store, what is missing there and nothing twice.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock

from bonas_core.errors import ModelError, SettingsError, first_line
from bonas_core.methods.bonas.model import FILE_NAME, PredictorModel, read_model
from bonas_core.report.analysis import honest_correlation
from bonas_core.settings import Settings, leaves
from bonas_core.storage import Location, local_folder
from bonas_core.trials import Objective, Trial
from tasks.home.workspace import REPORT_NAME, home, local_service, local_tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run
    from mlflow.entities.model_registry import ModelVersion

ARTIFACT_FOLDER = "predictor"
_REPORT_FOLDER = "report"
CHAMPION = "champion"
_SEARCH_TAG = "bonas.search"
_PREDICTOR_TAG = "bonas.predictor"
_SCORE_TAG = "bonas.honest_score"
_VERSION_TAG = "bonas.model_version"
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
_METRICS, _PARAMETERS, _TAGS = 1000, 100, 100
"""How many MLflow takes in one call."""
_PARAMETER_LENGTH, _TAG_LENGTH = 6000, 8000
"""Characters of a value that MLflow keeps."""
_PARAMETER_NAME = re.compile(r"\w[\w.\- :]{0,249}")
"""Names of parameters that MLflow takes."""
_PAGE = 1000
_SETTINGS_FILE = "settings.json"
_FEWEST = 5  # trials behind an honest score
_MODEL_URI = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


def registered_name(space: str) -> str:
    """Name of the registered model of a space."""
    return f"bonas-{space}"


def named_uri(uri: str | None) -> str | None:
    """The tracking store that is named: by the setting `tracking.uri`, else by MLflow's own MLFLOW_TRACKING_URI.

    Raises:
        SettingsError: it is not one that MLflow can keep a model registry in.
    """
    source = "tracking.uri" if uri else "MLFLOW_TRACKING_URI"
    uri = uri or os.environ.get(source) or None
    if uri is not None and urlsplit(uri).scheme.split("+")[0] not in _SCHEMES:
        raise SettingsError(
            f"{source} `{uri}`: not a database or server; use sqlite:////path/mlflow.db or http://host:port"
        )
    return uri


def connect(uri: str | None) -> MlflowClient:
    """A client of the tracking store that is named, or of the local one.

    Raises:
        SettingsError: the URI is not one that MLflow can keep a model registry in.
    """
    uri = named_uri(uri)
    if uri is None:
        uri = local_tracking_uri()
        _make_local_store()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment of a name, which is made where there is none.

    Raises:
        SettingsError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise SettingsError(f"tracking.experiment `{name}` was deleted in MLflow; restore it or name another")
        return str(found.experiment_id)
    local = urlsplit(client.tracking_uri).scheme.startswith("sqlite")
    place = (home() / "mlartifacts" / name).as_uri() if local else None
    try:
        return str(client.create_experiment(name, artifact_location=place))
    except MlflowException:  # another search made it in the meantime
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def log_batch(
    client: MlflowClient,
    run_id: str,
    metrics: Sequence[Metric] = (),
    parameters: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Logs metrics, parameters and tags of any number, in as many calls as MLflow's limits need.

    Values that are longer than MLflow keeps end with a note of their length. Logging a metric of the same name, value,
    step and time again changes nothing, nor does a parameter of the same value.

    Args:
        client: of the tracking server.
        run_id: names the run.
        metrics: to log.
        parameters: by name; those that are None, or have a name that MLflow does not take, are left out.
        tags: by name.
    """
    from mlflow.entities import Param, RunTag

    given = (parameters or {}).items()
    taken = [(name, str(value)) for name, value in given if value is not None and _PARAMETER_NAME.fullmatch(name)]
    logged = [Param(name, _shortened(value, _PARAMETER_LENGTH)) for name, value in taken]
    labels = [RunTag(name, _shortened(value, _TAG_LENGTH)) for name, value in (tags or {}).items()]
    for begin in range(0, len(metrics), _METRICS):
        client.log_batch(run_id, metrics=metrics[begin : begin + _METRICS])
    for begin in range(0, len(logged), _PARAMETERS):
        client.log_batch(run_id, params=logged[begin : begin + _PARAMETERS])
    for begin in range(0, len(labels), _TAGS):
        client.log_batch(run_id, tags=labels[begin : begin + _TAGS])


def _shortened(value: str, length: int) -> str:
    """Returns a value of at most so many characters, which says so where it is not the whole."""
    note = f"... ({len(value)} characters)"
    return value if len(value) <= length else value[: length - len(note)] + note


def log_settings(client: MlflowClient, run: Run, tree: Mapping[str, Any]) -> None:
    """Logs settings as parameters of a run and, whole, as its artifact `settings.json`, unless that has been done.

    A parameter that the run has already stays as it is: a run shows what it began with.
    """
    named = {name: value for name, value in leaves(tree) if value is not None and _PARAMETER_NAME.fullmatch(name)}
    missing = {name: value for name, value in named.items() if name not in run.data.params}
    if missing:
        client.log_dict(run.info.run_id, dict(tree), _SETTINGS_FILE)
        log_batch(client, run.info.run_id, parameters=missing)


def found_runs(client: MlflowClient, experiment_id: str, query: str) -> Iterator[Run]:
    """Yields all runs of an experiment that match a query, page by page."""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def version_of_run(
    client: MlflowClient, registered: str, run: Run, folder: str, tags: dict[str, str], description: str
) -> ModelVersion:
    """The version of a registered model that a run has made: the one that a killed process left, or a new one.

    Args:
        client: of the tracking server.
        registered: name of the model, which is made where there is none.
        run: whose artifact `folder` is the version.
        folder: of the run's artifacts.
        tags: of a new version.
        description: of a new version.
    """
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # it may be there already
        client.create_registered_model(registered)
    made = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    if made:
        return made[0]
    source = f"{run.info.artifact_uri}/{folder}"
    return client.create_model_version(registered, source, run.info.run_id, tags, description=description)


def _make_local_store() -> None:
    """Makes the local store's database, whole or not at all: MLflow cannot go on with one that was only begun."""
    path = home() / "mlflow.db"
    if path.exists():
        return
    from mlflow import MlflowClient

    with FileLock(path.with_name(".mlflow.lock")):
        if not path.exists():
            unfinished = path.with_name(".mlflow.db.tmp")
            unfinished.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{unfinished}").search_experiments(max_results=1)
            os.replace(unfinished, path)


@dataclass(frozen=True)
class HonestScore:
    """How well a predictor ranked trials that it had not seen: those that it proposed, before they were evaluated."""

    correlation: float
    """Spearman's rank correlation of predicted and found objective."""
    trials: int

    @property
    def bound(self) -> float:
        """Lower end of the correlation's one-standard-error interval (Fisher's z): luck with few trials counts for
        less."""
        z = math.atanh(max(min(self.correlation, 0.999), -0.999))
        return math.tanh(z - 1 / math.sqrt(self.trials - 3))


@dataclass(frozen=True)
class Pages:
    """Where people see a search in MLflow's UI."""

    run: str
    report: str
    """Of the run, once the report is published."""
    models: str
    """Predictors of the space."""


def shown_uri(uri: str) -> str:
    """A URI without user and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _ui(uri: str) -> str | None:
    """Address of MLflow's UI for a tracking store; None for a database that no server of ours shows."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return shown_uri(uri).rstrip("/")
    return local_service("mlflow_url") if uri == local_tracking_uri() else None


def honest_score(trials: Sequence[Trial]) -> HonestScore | None:
    """Score of the predictor that proposed these trials, or None where they are fewer than 5 or do not vary."""
    found = honest_correlation(trials)
    if found.spearman is None or found.n < _FEWEST:
        return None
    return HonestScore(found.spearman, found.n)


class Tracker:
    """The MLflow side of one search."""

    def __init__(self, client: MlflowClient, settings: Settings, search_id: str, uid: str, space: str) -> None:
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
        """Where people see the search, or None where no server shows it."""
        ui = _ui(self.uri)
        if ui is None:
            return None
        run = f"{ui}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        report = f"{run}/artifacts/{_REPORT_FOLDER}/{REPORT_NAME}"
        return Pages(run, report, f"{ui}/#/models/{registered_name(self.space)}")

    def is_published(self, version: str) -> bool:
        """Whether a predictor is registered already."""
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
        regression = model.surrogate.regression
        figures = {
            "alpha": regression.alpha,
            "beta": regression.beta,
            "log_evidence": regression.log_evidence,
            "trained_on": float(model.fitted.trained_on),
        }
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
            {_PREDICTOR_TAG: version, _SEARCH_TAG: self.search_id},
            f"{model.objective.name}, trained on {model.fitted.trained_on} trials of {self.search_id}",
        )
        if _champion(self.client, registered) is None:
            self.client.set_registered_model_alias(registered, CHAMPION, registered_version.version)
        log_batch(self.client, run.info.run_id, tags={_VERSION_TAG: str(registered_version.version)})
        self.client.set_terminated(run.info.run_id)
        self._published[version] = (run.info.run_id, str(registered_version.version))

    def score_predictor(self, version: str, score: HonestScore) -> bool:
        """Records the honest score of a predictor; the champion's alias moves to it if it is better. Says whether it
        moved."""
        if version not in self._published:
            return False
        run_id, registered_version = self._published[version]
        registered = registered_name(self.space)
        tag = f"{score.bound:.6f}"
        if self.client.get_model_version(registered, registered_version).tags.get(_SCORE_TAG) == tag:
            return False
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        figures = {
            "honest_spearman": score.correlation,
            "honest_trials": float(score.trials),
            "honest_score": score.bound,
        }
        log_batch(self.client, run_id, [Metric(key, value, now, score.trials) for key, value in figures.items()])
        self.client.set_model_version_tag(registered, registered_version, _SCORE_TAG, tag)
        return promote_if_better(self.client, registered, registered_version)

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

    def _nested_run(self, model: PredictorModel) -> Any:
        """The run of a predictor: the one that a killed process began, or a new one."""
        version = model.fitted.version
        query = f"tags.`mlflow.parentRunId` = '{self.run_id}' and tags.`{_PREDICTOR_TAG}` = '{version}'"
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        if found:
            return found[0]
        name = f"predictor on {model.fitted.trained_on} trials · {self.search_id}"  # lists cut names off
        tags = {"mlflow.parentRunId": self.run_id, _PREDICTOR_TAG: version, _SEARCH_TAG: self._uid}
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
            run.data.tags[_PREDICTOR_TAG]: (run.info.run_id, run.data.tags[_VERSION_TAG])
            for run in found_runs(self.client, self.experiment_id, query)
            if _VERSION_TAG in run.data.tags
        }


def promote_if_better(client: MlflowClient, registered: str, version: str) -> bool:
    """Moves the champion's alias to a model version if its honest score is better; says whether it moved."""
    score = float(client.get_model_version(registered, version).tags[_SCORE_TAG])
    champion = _champion(client, registered)
    if champion is not None and score <= float(champion.tags.get(_SCORE_TAG, "-inf")):
        return False
    client.set_registered_model_alias(registered, CHAMPION, version)
    return True


def promote_registered(client: MlflowClient, uri: str, score: HonestScore) -> bool:
    """Records the honest score of a version that `register_predictor` made, and promotes it if that is better."""
    match = _MODEL_URI.fullmatch(uri)
    assert match is not None
    registered, alias, _ = match.groups()
    version = str(client.get_model_version_by_alias(registered, alias).version)
    client.set_model_version_tag(registered, version, _SCORE_TAG, f"{score.bound:.6f}")
    return promote_if_better(client, registered, version)


def register_predictor(client: MlflowClient, model: PredictorModel, alias: str) -> str:
    """Registers a predictor that no search has made, under an alias; a version of it that is there is used again.

    Returns:
        its URI, `models:/NAME@ALIAS`.
    """
    from mlflow.exceptions import MlflowException

    registered = registered_name(model.space)
    with suppress(MlflowException):  # it may be there already
        client.create_registered_model(registered)
    version = model.fitted.version
    made = list(client.search_model_versions(f"name = '{registered}' and tags.`{_PREDICTOR_TAG}` = '{version}'"))
    if not made:
        run = client.create_run(experiment(client, registered), run_name=f"{alias} on {model.fitted.trained_on} cells")
        with TemporaryDirectory() as folder:
            model.write(Path(folder) / FILE_NAME)
            client.log_artifact(run.info.run_id, str(Path(folder) / FILE_NAME), ARTIFACT_FOLDER)
        client.set_terminated(run.info.run_id)
        description = f"{model.objective.name}, trained on {model.fitted.trained_on} cells"
        source, tags = f"{run.info.artifact_uri}/{ARTIFACT_FOLDER}", {_PREDICTOR_TAG: version}
        made = [client.create_model_version(registered, source, run.info.run_id, tags, description=description)]
    client.set_registered_model_alias(registered, alias, made[0].version)
    return f"models:/{registered}@{alias}"


def load_registered(tracking_uri: str | None, uri: str) -> PredictorModel:
    """Loads the predictor behind `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        ModelError: there is none, or it is not a predictor of ours.
    """
    with downloaded(tracking_uri, uri, "run a search of that space first") as folder:
        return read_model(folder / FILE_NAME)


@contextmanager
def downloaded(tracking_uri: str | None, uri: str, remedy: str) -> Iterator[Path]:
    """A copy of the files of a model version, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Args:
        tracking_uri: of the tracking store; by default what `named_uri` finds, or the local one.
        uri: names the version.
        remedy: what to do if there is none.

    Raises:
        ModelError: there is none, or it cannot be had.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    match = _MODEL_URI.fullmatch(uri)
    if match is None:
        raise ModelError(f"model `{uri}`: write it as models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = match.groups()
    client = connect(tracking_uri)
    with TemporaryDirectory() as folder:
        try:
            if alias is not None:
                version = client.get_model_version_by_alias(name, alias).version
            source = client.get_model_version_download_uri(name, version)
            local = download_artifacts(source, dst_path=folder, tracking_uri=client.tracking_uri)
        except (MlflowException, OSError, ValueError) as error:
            reason = first_line(error)
            raise ModelError(f"model `{uri}` cannot be had ({reason}); {remedy}") from None
        yield Path(local)


def _champion(client: MlflowClient, registered: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(registered, CHAMPION)
    except MlflowException:
        return None
