"""Trained networks in MLflow: a run for each training, with its card, and a version of the registered model.

Runs are found by their tags before they are made, so publishing again adds what is missing and nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bonas_core.errors import ModelError
from bonas_core.image_training.trained import FILE_NAME, TrainedNetwork, read_trained
from bonas_core.report.card import CELL_PICTURE, CURVE_PICTURE
from bonas_core.settings import parse_settings
from bonas_core.storage import local_folder
from tasks.home.training_folder import CARD_FILE, Plan, Result, TrainingFolder, model_alias
from tasks.mlflow_store.client import experiment, log_batch, log_settings
from tasks.mlflow_store.registry import VERSION_TAG, downloaded, version_of_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACT_FOLDER = "network"
CARD_FOLDER = "card"
_TRAINING_TAG, _CELL_TAG = "bonas.training", "bonas.cell"


def publish_training(client: MlflowClient, folder: TrainingFolder, plan: Plan, place: int, result: Result) -> str:
    """Logs a finished training as a run and registers its network, unless that has been done.

    Returns:
        the version's URI, `models:/NAME@ALIAS`.
    """
    from mlflow.entities import Metric

    own, settings = folder.cell(place), parse_settings(plan.settings, folder.id)
    alias = model_alias(folder.id, place)
    uri = f"models:/{result.model}@{alias}"
    experiment_id = experiment(client, settings.tracking.experiment or f"bonas-{settings.space}")
    query = f"tags.`{_TRAINING_TAG}` = '{plan.uid}' and tags.`{_CELL_TAG}` = '{place}'"
    found = client.search_runs([experiment_id], query, max_results=1)
    if found and VERSION_TAG in found[0].data.tags:
        return uri
    own_tags = {_TRAINING_TAG: plan.uid, _CELL_TAG: str(place)}
    tags = {**own_tags, "bonas.kind": "training"}
    run = found[0] if found else client.create_run(experiment_id, tags=tags, run_name=f"{folder.id} · cell {place}")
    run_id = run.info.run_id
    chosen = plan.chosen[place - 1]
    begun = run.info.start_time  # so that whoever publishes again what was cut off logs the same points
    metrics = [
        Metric("accuracy" if name == "objective" else name, value, begun, epoch)
        for epoch, figures in sorted(own.curve().items())
        for name, value in figures.items()
        if name != "cost_s"
    ]
    closing = {"params": result.params, "mult_adds": result.mult_adds, "cost_s": result.cost_s}
    closing |= {name: result.metrics[name] for name in ("test", "test_top5") if name in result.metrics}
    metrics += [Metric(name, float(value), begun, result.epochs) for name, value in closing.items()]
    log_settings(client, run, plan.settings)
    log_batch(client, run_id, metrics, {"cell": chosen.cell, "origin": chosen.origin})
    with local_folder(own.path) as local:
        for name in (CARD_FILE, CELL_PICTURE, CURVE_PICTURE):
            client.log_artifact(run_id, str(local / name), CARD_FOLDER)
        client.log_artifact(run_id, str(local / FILE_NAME), ARTIFACT_FOLDER)
        card = (local / CARD_FILE).read_text()
    log_batch(client, run_id, tags={"mlflow.note.content": card})
    description = f"{result.metrics['test']:.2f} % of test images, {result.epochs} epochs; {chosen.origin}"
    version = version_of_run(client, result.model, run, ARTIFACT_FOLDER, own_tags, description)
    client.set_registered_model_alias(result.model, alias, version.version)
    log_batch(client, run_id, tags={VERSION_TAG: str(version.version)})
    client.set_terminated(run_id)
    return uri


def load_network(uri: str, tracking_uri: str | None = None) -> TrainedNetwork:
    """Loads the trained network behind `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Args:
        uri: names the version.
        tracking_uri: MLflow server; by default the local store.

    Raises:
        ModelError: there is none, or it is not a network of ours; nothing of it is ever unpickled.
    """
    with downloaded(tracking_uri, uri, "train a cell with `bonas train` first") as folder:
        strangers = sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != FILE_NAME)
        if strangers:
            raise ModelError(
                f"model `{uri}`: its version holds `{strangers[0]}`, trained networks are one file `{FILE_NAME}`; name "
                "a model registered by `bonas train`"
            )
        return read_trained(folder / FILE_NAME)
