"""Final training as a Prefect flow: the best cells of a search, or a given one, trained to the end under one recipe.

What is trained is fixed when it begins and stands in the folder (`tasks/home/training_folder.py`), which is all the
state there is: the same call goes on, a training that is finished is not repeated, one that was cut off goes on from
its last epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from threading import Event, current_thread, main_thread
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from bonas_core.errors import BonasError, SearchError, SearchLockedError, TrainingProcessError, TrialStoppedError
from bonas_core.settings import Settings, TrainingSettings
from bonas_core.storage import make_folder, remove_folder, remove_unfinished, single_writer
from flows.running.interruption import raise_if_requested
from flows.running.observer import Observer, current_observer
from flows.running.recovery import mark_dead_runs
from flows.running.reporting import show_training
from flows.running.training_plan import Prepared, default_training_id, prepare
from tasks.home.outage import reason_of, watching_servers
from tasks.home.training_folder import Result
from tasks.mlflow_store.client import connect, named_uri
from tasks.mlflow_store.networks import publish_training
from tasks.train_cell import train_cell


def _run_name() -> str:
    return str(flow_run.parameters.get("training_id") or "train")


@flow(name="train", flow_run_name=_run_name)
def train(
    settings: Settings,
    cell: str | None = None,
    source: str | None = None,
    top: Annotated[int, Field(ge=1, le=1000)] = 1,
    training_id: str | None = None,
) -> dict[str, Any]:
    """Train cells to the end and register their networks; with the id of trainings that exist, go on with them.

    Args:
        settings: the recipe; `budget` and `method` have no meaning here.
        cell: as its space prints it, or the name of a published one; or give a source.
        source: id of a search, or of earlier trainings, whose best cells are trained.
        top: how many of them.
        training_id: by default made from settings and cells.

    Returns:
        id, state, and for every cell what was found.
    """
    name = training_id or default_training_id("train", settings, cell, source, top, overrides=True)
    prepared = prepare(settings, cell, source, top, name)
    folder = prepared.folder
    is_new = not folder.exists()
    make_folder(folder.path)
    with single_writer(folder.path):
        if is_new and folder.exists():
            raise SearchLockedError(f"training `{folder.id}` was started a moment ago by another process; run it again")
        if is_new:
            folder.write(prepared.plan)
        remove_unfinished(folder.path)
        mark_dead_runs(folder.path, current_observer().warning)
        folder.write_state("running")
        state, reason = "paused", "stopped"
        try:
            with watching_servers(named_uri(settings.tracking.uri), current_observer().warning):
                _train_all(prepared)
            state, reason = "finished", ""
        except Exception as error:
            state, reason = "failed", reason_of(error)
            raise
        finally:
            folder.write_state(state, reason)
    return show_training(folder)


def _train_all(prepared: Prepared) -> None:
    """Trains what is not trained yet, publishing as results come; one that fails does not keep the others from it."""
    folder, plan, settings = prepared.folder, prepared.plan, prepared.settings
    assert isinstance(settings.evaluator, TrainingSettings)
    observer, stop, epochs = current_observer(), Event(), settings.evaluator.epochs
    failures: list[tuple[int, Exception]] = []
    publisher = _Publisher(prepared, observer)
    open_cells = []
    for place in range(1, len(plan.chosen) + 1):
        result = folder.cell(place).result()
        if result is None:
            open_cells.append(place)
        else:
            remove_folder(folder.cell(place).checkpoints)  # as left by a kill right after it was recorded
            publisher.publish(place, result)

    def arguments(place: int) -> dict[str, Any]:
        return {
            "evaluator": prepared.evaluator,
            "settings": settings,
            "folder": folder,
            "place": place,
            "chosen": plan.chosen[place - 1],
            "on_epoch": partial(_on_epoch, observer, f"{folder.id} · cell {place}", epochs),
            "stop": stop,
        }

    def ended(place: int, result: Callable[[], Result]) -> None:
        try:
            publisher.publish(place, result())
        except TrialStoppedError:
            pass
        except Exception as error:
            observer.warning(f"cell {place} of training `{folder.id}`: {reason_of(error)}")
            failures.append((place, error))

    def named(place: int) -> Any:
        return train_cell.with_options(
            task_run_name=f"train cell {place} of {folder.id}",
            retries=settings.dispatch.retries,
            retry_condition_fn=_worth_another,
        )

    try:
        if settings.dispatch.slots == 1 or len(open_cells) < 2:
            for place in open_cells:
                ended(place, partial(named(place), **arguments(place)))
        else:
            runner: ThreadPoolTaskRunner[Result] = ThreadPoolTaskRunner(max_workers=settings.dispatch.slots)
            with runner:
                futures = {place: runner.submit(named(place), arguments(place)) for place in open_cells}
                for place, future in futures.items():
                    ended(place, future.result)
    finally:
        stop.set()  # trainings in threads are given up after their epoch, to go on another time
    if failures:
        place, error = failures[0]
        if _is_for_a_person(error):
            raise error
        raise SearchError(
            f"training `{folder.id}`: cell {place} failed: {reason_of(error)}; the same command goes on with it"
        ) from error


def _worth_another(task: object, run: object, state: Any) -> bool:
    """Tells whether a training that raised may be tried again: what is raised on purpose would be raised again."""
    return not _is_for_a_person(state.result(raise_on_failure=False))


def _is_for_a_person(error: BaseException) -> bool:
    """Tells whether an error says what a person has to change; that a process of a team has died does not."""
    return isinstance(error, BonasError) and not isinstance(error, TrainingProcessError)


def _on_epoch(observer: Observer, what: str, epochs: int, epoch: int, figures: Mapping[str, float]) -> None:
    observer.training(what, epochs, epoch, figures)
    if current_thread() is main_thread():
        raise_if_requested()


class _Publisher:
    """Publishes to MLflow, whose absence is worth one warning: what is missing is published the next time."""

    def __init__(self, prepared: Prepared, observer: Observer) -> None:
        self._prepared = prepared
        self._observer = observer
        self._warned = False

    def publish(self, place: int, result: Result) -> None:
        """Publishes a finished training, unless that has been done."""
        folder, plan = self._prepared.folder, self._prepared.plan
        try:
            publish_training(connect(self._prepared.settings.tracking.uri), folder, plan, place, result)
        except Exception as error:  # whatever a tracking server does, trainings go on
            if not self._warned:
                self._warned = True
                text = f"MLflow: {reason_of(error)}; trainings go on, the same command publishes what is missing"
                self._observer.warning(text)
