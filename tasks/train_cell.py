"""The training of one cell to the end, as a Prefect task: what it leaves is in its folder, whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event

from prefect import task
from prefect.cache_policies import NO_CACHE

from bonas_core.errors import TrialStoppedError
from bonas_core.evaluators.base import EvaluationContext
from bonas_core.image_training.checkpoint import CHECKPOINT, last_epoch
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.image_training.trained import FILE_NAME, TrainedNetwork, trained_network
from bonas_core.networks.published import architecture_of
from bonas_core.networks.size import NetworkSize, network_size
from bonas_core.report.card import CELL_PICTURE, CURVE_PICTURE, Facts, model_card
from bonas_core.report.figures import cell_image, training_curve
from bonas_core.search import training_folder as on_disk
from bonas_core.settings import Settings
from bonas_core.spaces.architecture import Architecture
from bonas_core.storage import make_folder, remove_folder, write_whole
from tasks.dispatch.slots import place_here
from tasks.home.training_folder import CARD_FILE, CellFolder, Chosen, Result, TrainingFolder, model_alias, model_name

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Callback of every epoch: its number and the figures so far."""


@task(name="train cell", cache_policy=NO_CACHE)
def train_cell(
    evaluator: TrainingEvaluator,
    settings: Settings,
    folder: TrainingFolder,
    place: int,
    chosen: Chosen,
    on_epoch: OnEpoch,
    stop: Event,
) -> Result:
    """Train one cell to the end and keep its network, with a model card; goes on from its last checkpoint.

    Raises:
        TrainingDivergedError: a loss left the range of numbers.
        TrialStoppedError: `stop` was set.
    """
    own = folder.cell(place)
    architecture = architecture_of(evaluator.space, chosen.cell)
    curve = own.curve()
    begin = time.monotonic()

    def record(epoch: int, figures: Mapping[str, float]) -> None:
        nonlocal begin
        curve[epoch] = {**figures, "cost_s": time.monotonic() - begin}
        begin = time.monotonic()
        own.write_curve(curve)
        on_epoch(epoch, figures)
        if stop.is_set():
            raise TrialStoppedError(f"training `{folder.id}`: cell {place} was given up")

    make_folder(own.checkpoints)
    with (
        place_here(settings, f"cell {place} of {folder.id}") as slot,
        on_disk(own.checkpoints, record) as (local, progress),
    ):
        assert local is not None
        done, reached = last_epoch(local / CHECKPOINT)
        curve = {epoch: point for epoch, point in curve.items() if epoch <= done}
        if done and done not in curve:  # killed between the checkpoint and the curve
            curve[done] = {**reached, "cost_s": 0.0}
        trained = evaluator.train(architecture, EvaluationContext(settings.seed, slot.device, local, progress))
    outcome = trained.outcome
    kind, network_settings = evaluator.network
    figures = {"validation": outcome.objective} if "validation_loss" in outcome.metrics else {}
    named = ("test", "validation_top5", "test_top5")
    figures |= {name: outcome.metrics[name] for name in named if name in outcome.metrics}
    kept = trained_network(
        trained.network,
        architecture,
        space=settings.space,
        kind=kind,
        settings=network_settings,
        data=evaluator.data,
        figures=figures,
    )
    size = network_size(trained.network, kept.image)
    result = Result(
        objective=outcome.objective,
        metrics=dict(outcome.metrics),
        epochs=int(outcome.epochs or 0),
        params=size.params,
        mult_adds=size.mult_adds,
        cost_s=sum(point["cost_s"] for point in curve.values()),
        device=slot.device.partition(":")[0],
        model=model_name(kept.data, kept.space),
    )
    _write(own, settings, evaluator, kept, architecture, curve, result, chosen, folder.id, place)
    own.write_result(result)
    remove_folder(own.checkpoints)
    return result


def _write(
    own: CellFolder,
    settings: Settings,
    evaluator: TrainingEvaluator,
    network: TrainedNetwork,
    architecture: Architecture,
    curve: Mapping[int, Mapping[str, float]],
    result: Result,
    chosen: Chosen,
    training_id: str,
    place: int,
) -> None:
    """Writes the network and its card."""
    data = evaluator.data
    counts = (len(data.train[1]), len(data.validation[1]), len(data.test[1]))
    facts = Facts(
        title=f"{training_id}, cell {place}",
        origin=chosen.origin,
        size=NetworkSize(result.params, result.mult_adds),
        images=counts,
        epochs=result.epochs,
        seed=settings.seed,
        device=result.device,
        cost_s=result.cost_s,
        recipe=settings.evaluator.model_dump(mode="json"),
        model=f"models:/{result.model}@{model_alias(training_id, place)}",
    )
    network.write(own.path / FILE_NAME)
    write_whole(own.path / CELL_PICTURE, cell_image(architecture, evaluator.space.vocabulary))
    write_whole(own.path / CURVE_PICTURE, training_curve(curve))
    write_whole(own.path / CARD_FILE, model_card(network, facts).encode())
