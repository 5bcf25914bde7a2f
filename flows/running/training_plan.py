"""Final trainings before they begin: what is to be trained, and whether it can be; nothing is written here.

Cells are chosen by the objective of their search, or by accuracy on images that a final training held out; by test
images never.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from bonas_core.errors import SettingsError
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.image_training.trained import unfilled_network
from bonas_core.networks.published import architecture_of
from bonas_core.problem import build_evaluator, build_space
from bonas_core.report.analysis import leaderboard
from bonas_core.settings import Settings, TrainingSettings
from bonas_core.storage import check_writable
from bonas_core.trials import Objective
from bonas_core.trials.history import TrialHistory
from flows.running.continuing import check_continued, default_id
from flows.running.opening import new_uid, versions
from tasks.home.search_folder import search_folder
from tasks.home.training_folder import Chosen, Plan, TrainingFolder, training_folder
from tasks.mlflow_store.client import named_uri


@dataclass(frozen=True)
class Prepared:
    """Final trainings that may be started or gone on with."""

    folder: TrainingFolder
    plan: Plan
    settings: Settings
    evaluator: TrainingEvaluator


def prepare(settings: Settings, cell: str | None, source: str | None, top: int, training_id: str) -> Prepared:
    """Checks that final trainings can be started or gone on with, and says which; writes nothing.

    Args:
        settings: of the trainings; the space is that of the source, where there is one.
        cell: a cell of the space, or the name of a published one.
        source: id of a search or of earlier trainings.
        top: cells of the source.
        training_id: of these trainings.

    Raises:
        InputError: a setting, the cell, the source, the data or earlier trainings of this id stand in the way.
    """
    if (cell is None) == (source is None):
        raise SettingsError("train: give either a cell or --from ID of a search; one of the two says what to train")
    if not isinstance(settings.evaluator, TrainingSettings):
        raise SettingsError("train: evaluator.kind is not training; give a preset such as cifar10-final")
    named_uri(settings.tracking.uri)
    request = f"cell {cell}" if source is None else f"the best {top} of {source}"
    folder = training_folder(training_id, settings.store)
    check_writable(folder.path)
    plan = folder.read() if folder.exists() else None
    if plan is None:
        space_name, chosen = _chosen(settings, cell, source, top)
    else:
        if plan.request != request:
            raise SettingsError(
                f"training `{folder.id}` was started with {plan.request}, not {request}; start another with --id"
            )
        space_name, chosen = str(plan.settings.get("space")), plan.chosen
    settings = settings.model_copy(update={"space": space_name})
    if plan is not None:
        for place in range(1, len(chosen) + 1):
            folder.cell(place).result()  # raises if its file is damaged
        check_continued(f"training `{folder.id}`", plan.settings, settings)
    evaluator = build_evaluator(settings, build_space(space_name))
    assert isinstance(evaluator, TrainingEvaluator)
    for one in chosen:
        _check_trainable(evaluator, one.cell)
    if plan is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        plan = Plan(new_uid(), request, settings.tree(), evaluator.fingerprint, chosen, versions(), now)
    elif plan.fingerprint != evaluator.fingerprint:
        raise SettingsError(
            f"training `{folder.id}`: data or recipe are not what it was started with; restore them, or start another "
            "with --id"
        )
    return Prepared(folder, plan, settings, evaluator)


def default_training_id(
    name: str, settings: Settings, cell: str | None, source: str | None, top: int, overrides: bool
) -> str:
    """Makes an id that is the same whenever the same trainings are asked for.

    Args:
        name: of preset or file.
        settings: see `prepare`.
        cell: see `prepare`.
        source: see `prepare`.
        top: see `prepare`.
        overrides: whether the settings are not those of the preset.
    """
    if source is not None:
        what = source + (f"-top{top}" if top > 1 else "")
    else:
        text = str(cell)
        what = text if re.fullmatch(r"[A-Za-z0-9-]{1,40}", text) else hashlib.sha256(text.encode()).hexdigest()[:6]
    return default_id(f"{name}-{what}", settings, overrides)


def _chosen(settings: Settings, cell: str | None, source: str | None, top: int) -> tuple[str, list[Chosen]]:
    """Chooses the cells to train, in order; returns their space with them."""
    if cell is not None:
        text = architecture_of(build_space(settings.space), cell).text
        return settings.space, [Chosen(text, f"published as {cell}" if text != cell else "given by its text")]
    assert source is not None
    earlier = _earlier(source, settings.store)
    return _of_trainings(earlier, top) if earlier is not None else _of_search(source, settings.store, top)


def _earlier(source: str, store: str | None) -> TrainingFolder | None:
    search = search_folder(source, store)
    folder = None if search.exists() else training_folder(source, store)
    return folder if folder is not None and folder.exists() else None


def _of_search(source: str, store: str | None, top: int) -> tuple[str, list[Chosen]]:
    """Chooses the best trials of a search, by its objective."""
    folder = search_folder(source, store)
    stored = folder.read()
    objective = Objective(**stored["objective"])
    best = leaderboard(TrialHistory(folder.trials).trials(), objective)[:top]
    if len(best) < top:
        raise SettingsError(f"--top {top}: search `{source}` has {len(best)} trials that ended well; ask for fewer")
    unit = " %" if objective.unit == "percent" else ""
    return str(stored["settings"]["space"]), [
        Chosen(t.architecture, f"trial {t.trial} of search {source}: {objective.name} {t.objective:.2f}{unit}")
        for t in best
    ]


def _of_trainings(folder: TrainingFolder, top: int) -> tuple[str, list[Chosen]]:
    """Chooses the best cells of earlier trainings by the images that these held out.

    Where none were held out, the cells stay in their own order, which is that of their search: accuracies on test
    images choose nothing.
    """
    plan = folder.read()
    found = [(chosen, folder.cell(place).result()) for place, chosen in enumerate(plan.chosen, start=1)]
    ended = [(chosen, result) for chosen, result in found if result is not None]
    if len(ended) < len(found) or top > len(found):
        raise SettingsError(
            f"training `{folder.id}`: {len(ended)} of its {len(found)} cells are trained, {top} are asked for; go on "
            "with it, or ask for fewer"
        )
    if all("validation_loss" in result.metrics for _, result in ended):
        ended.sort(key=lambda pair: -pair[1].objective)
    return str(plan.settings["space"]), [
        Chosen(chosen.cell, f"training {folder.id}, which had it from: {chosen.origin}") for chosen, _ in ended[:top]
    ]


def _check_trainable(evaluator: TrainingEvaluator, cell: str) -> None:
    """Raises InputError unless the network of a cell can be built."""
    architecture = architecture_of(evaluator.space, cell)
    kind, options = evaluator.network
    if ":" not in kind:  # a network of one's own need not be able to do without memory
        data = evaluator.data
        unfilled_network(kind, architecture, data.train[0].shape[1], data.classes, options)
