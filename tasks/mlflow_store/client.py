"""MLflow's client: which server it talks to, and how runs are found and logged to within MLflow's limits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock

from bonas_core.errors import SettingsError
from bonas_core.settings import leaves
from tasks.home.environment import home, local_tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
_METRICS, _PARAMETERS, _TAGS = 1000, 100, 100
"""Numbers of each that MLflow takes in one call."""
_PARAMETER_LENGTH, _TAG_LENGTH = 6000, 8000
"""Characters of a value that MLflow keeps."""
_PARAMETER_NAME = re.compile(r"\w[\w.\- :]{0,249}")
"""Names of parameters that MLflow takes."""
_PAGE = 1000
_SETTINGS_FILE = "settings.json"


def named_uri(uri: str | None) -> str | None:
    """Finds the tracking store that is named: by the setting `tracking.uri`, else by MLflow's own MLFLOW_TRACKING_URI.

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
    """Makes a client of the tracking store that is named, or of the local one.

    Raises:
        SettingsError: the URI is not one that MLflow can keep a model registry in.
    """
    uri = named_uri(uri)
    if uri is None:
        uri = local_tracking_uri()
        _make_local_store()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


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


def experiment(client: MlflowClient, name: str) -> str:
    """Finds the id of the experiment of a name, which is made where there is none.

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
