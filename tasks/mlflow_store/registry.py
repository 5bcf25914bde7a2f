"""MLflow's model registry: the versions of a space's predictor and the champion among them, found and loaded by name.

Everything here can be done again: what is registered is found before it would be registered a second time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bonas_core.errors import ModelError, first_line
from bonas_core.methods.bonas.model import FILE_NAME, PredictorModel, read_model
from tasks.mlflow_store.client import connect, experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

ARTIFACT_FOLDER = "predictor"
CHAMPION = "champion"
PREDICTOR_TAG = "bonas.predictor"
"""Tag of a version and its run that holds the predictor's own version."""
VERSION_TAG = "bonas.model_version"
"""Tag of a run that holds the number of the version that it has registered."""
_SCORE_TAG = "bonas.honest_score"
_MODEL_URI = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


def registered_name(space: str) -> str:
    """Names the registered model of a space."""
    return f"bonas-{space}"


def version_of_run(
    client: MlflowClient, registered: str, run: Run, folder: str, tags: dict[str, str], description: str
) -> ModelVersion:
    """Returns the version of a registered model that a run has made: what a killed process left, or a new one.

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


def champion(client: MlflowClient, registered: str) -> ModelVersion | None:
    """Finds the champion among the versions of a registered model; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(registered, CHAMPION)
    except MlflowException:
        return None


def has_score(client: MlflowClient, registered: str, version: str, score: float) -> bool:
    """Tells whether this is the honest score that is recorded of a version."""
    return client.get_model_version(registered, version).tags.get(_SCORE_TAG) == _as_tag(score)


def record_score(client: MlflowClient, registered: str, version: str, score: float) -> bool:
    """Records the honest score of a version, and moves the champion's alias to it if its score is better.

    Returns:
        whether the alias moved.
    """
    client.set_model_version_tag(registered, version, _SCORE_TAG, _as_tag(score))
    best = champion(client, registered)
    if best is not None and float(_as_tag(score)) <= float(best.tags.get(_SCORE_TAG, "-inf")):
        return False
    client.set_registered_model_alias(registered, CHAMPION, version)
    return True


def _as_tag(score: float) -> str:
    return f"{score:.6f}"


def promote_registered(client: MlflowClient, uri: str, score: float) -> bool:
    """Records the honest score of a version that `register_predictor` made, and promotes it if that is better."""
    match = _MODEL_URI.fullmatch(uri)
    assert match is not None
    registered, alias, _ = match.groups()
    return record_score(client, registered, str(client.get_model_version_by_alias(registered, alias).version), score)


def register_predictor(client: MlflowClient, model: PredictorModel, alias: str) -> str:
    """Registers a predictor that no search has made, under an alias; a version of it that is there is used again.

    Returns:
        its URI, `models:/NAME@ALIAS`.
    """
    registered, version = registered_name(model.space), model.fitted.version
    found = client.search_model_versions(f"name = '{registered}' and tags.`{PREDICTOR_TAG}` = '{version}'")
    if found:
        number = found[0].version
    else:
        run = client.create_run(experiment(client, registered), run_name=f"{alias} on {model.fitted.trained_on} cells")
        with TemporaryDirectory() as folder:
            model.write(Path(folder) / FILE_NAME)
            client.log_artifact(run.info.run_id, str(Path(folder) / FILE_NAME), ARTIFACT_FOLDER)
        client.set_terminated(run.info.run_id)
        description = f"{model.objective.name}, trained on {model.fitted.trained_on} cells"
        tags = {PREDICTOR_TAG: version}
        number = version_of_run(client, registered, run, ARTIFACT_FOLDER, tags, description).version
    client.set_registered_model_alias(registered, alias, number)
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
    """Downloads the files of a model version, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Args:
        tracking_uri: of the tracking store; by default what `named_uri` finds, or the local one.
        uri: names the version.
        remedy: what to do if there is none.

    Yields:
        the folder that they are in, for the time of the block.

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
