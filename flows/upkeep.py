"""Flows that run by the clock: every night open searches go on, every week the predictor of a space is refreshed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import numpy as np
from prefect import flow, get_run_logger
from pydantic import Field

from bonas_core.errors import BonasError, StoreError
from bonas_core.methods.bonas.model import PredictorModel
from bonas_core.methods.bonas.strategy import Bonas
from bonas_core.problem import Problem, build
from bonas_core.settings import Settings, parse_settings
from bonas_core.storage import Location, store_folder
from bonas_core.trials import Trial, Trials, TrialState
from bonas_core.trials.history import TrialHistory, read_part
from flows.running.opening import stored_settings
from flows.search import search
from tasks.home.environment import default_store
from tasks.home.search_folder import SearchFolder, searches
from tasks.mlflow_store.client import connect
from tasks.mlflow_store.registry import promote_registered, register_predictor
from tasks.mlflow_store.search_run import HonestScore, honest_score

_FEWEST = 30  # trials to learn from: a fifth of them scores the predictor
_ALIAS = "refreshed"


@flow(name="continue-searches")
def continue_searches(
    store: str | None = None,
    trials: Annotated[int, Field(ge=1)] | None = None,
    hours: Annotated[float, Field(gt=0)] | None = None,
) -> dict[str, Any]:
    """Go on with every open search of a store, within a budget that they share.

    What a search does not use of its equal share goes to those after it; the one that has fewest trials comes first.
    A search that fails, or is damaged, does not keep the others from going on.

    Args:
        store: folder of searches; by default that of the worker's home.
        trials: further trials in all.
        hours: hours in all.

    Returns:
        for each search its state and how many trials it gained.
    """
    logger = get_run_logger()
    folder = store_folder(store) if store else default_store()
    waiting = sorted((found for found in searches(folder) if _is_open(found)), key=_size)
    deadline = None if hours is None else time.monotonic() + 3600 * hours
    left, gained = trials, {}
    for place, found in enumerate(waiting):
        others = len(waiting) - place
        share = None if left is None else -(-left // others)
        hours_left = None if deadline is None else (deadline - time.monotonic()) / 3600 / others
        if share == 0 or (hours_left is not None and hours_left <= 0):
            break
        before = _size(found)
        try:
            settings = stored_settings(found.id, str(folder), None)
            search(settings, search_id=found.id, more_trials=share, more_hours=hours_left)
        except BonasError as error:
            logger.warning("search %s: %s", found.id, error)
        except Exception:
            logger.exception("search %s failed; the others go on", found.id)
        more = _size(found) - before
        gained[found.id] = {"state": found.state(), "gained": more}
        left = None if left is None else max(0, left - more)
        logger.info("search %s: %s", found.id, gained[found.id])
    return gained


@flow(name="refresh-predictor")
def refresh_predictor(
    space: str = "nasbench201", store: str | None = None, tracking_uri: str | None = None
) -> dict[str, Any]:
    """Train a predictor on all that the searches of a space have found, and promote it if it is better.

    Searches that evaluate in different ways cannot be learnt from together: the way with most trials is taken. The
    honest score is that of the same predictor trained on the earlier four fifths of the trials: how well it ranks the
    later fifth, which it has not seen. The champion changes only to a better score. A search that is damaged is left
    out.

    Args:
        space: registered name of a space, or module:object.
        store: folder of searches; by default that of the worker's home.
        tracking_uri: MLflow server; by default that of the worker's home.

    Returns:
        trials learnt from, score, model, and whether it was promoted.
    """
    logger = get_run_logger()
    folder = store_folder(store) if store else default_store()
    settings, trials = gathered(folder, space, logger.warning)
    if len(trials) < _FEWEST or not _have_objectives(trials):
        found = "too few" if len(trials) < _FEWEST else "all diverged: nothing"
        logger.warning("space %s: %d trials are %s to learn from", space, len(trials), found)
        return {"trials": len(trials), "promoted": False}
    assert settings is not None
    problem = build(_to_learn(settings))
    earlier = len(trials) * 4 // 5
    score = holdout_score(problem, trials, earlier)
    model = fitted_on(problem, trials)
    client = connect(tracking_uri)
    uri = register_predictor(client, model, _ALIAS)
    promoted = score is not None and promote_registered(client, uri, score.bound)
    return {
        "trials": len(trials),
        "honest_score": None if score is None else score.bound,
        "model": uri,
        "promoted": promoted,
    }


def gathered(store: Location, space: str, warn: Callable[[str], None]) -> tuple[Settings | None, list[Trial]]:
    """Gathers what the searches of a space have found, as far as they evaluate alike.

    Args:
        store: of the searches.
        space: as settings name it.
        warn: called, with one line, of each search that is damaged and left out.

    Returns:
        the settings of the newest search, and all distinct trials in the order in which they ended; of several ways to
        evaluate, that with most trials. None and no trials where there is no such search.
    """
    groups: dict[str, list[tuple[str, Settings, list[Trial]]]] = defaultdict(list)
    for found in searches(store):
        try:
            stored = found.read()
            if stored["space"] == space:
                settings, trials = stored_settings(found.id, str(store), None), TrialHistory(found.trials).trials()
                groups[stored["fingerprint"]].append((str(stored.get("created_at")), settings, trials))
        except BonasError as error:
            warn(f"search {found.id} is left out: {error}")
    best: tuple[Settings | None, list[Trial]] = (None, [])
    for members in groups.values():
        members.sort(key=lambda member: member[0])
        distinct: dict[str, Trial] = {}
        for _, _, trials in members:
            for trial in trials:
                if trial.state in (TrialState.DONE, TrialState.DIVERGED):
                    distinct.setdefault(trial.key, trial)
        if len(distinct) > len(best[1]):
            ended = sorted(distinct.values(), key=lambda trial: (trial.finished_at, trial.key))
            best = members[-1][1], ended
    return best


def fitted_on(problem: Problem, trials: Sequence[Trial]) -> PredictorModel:
    """Trains the predictor of a problem on trials of any searches."""
    strategy, space, n = problem.strategy, problem.space, len(trials)
    assert isinstance(strategy, Bonas)
    genotypes = space.parse([trial.architecture for trial in trials])
    diverged = np.array([trial.state is TrialState.DIVERGED for trial in trials])
    scores = [problem.objective.score(t.objective) if t.objective is not None else np.nan for t in trials]
    columns = Trials(genotypes, space.keys(genotypes), np.array(scores), np.ones(n, dtype=bool), diverged)
    return strategy.fit_model(columns, seed=0)


def holdout_score(problem: Problem, trials: Sequence[Trial], earlier: int) -> HonestScore | None:
    """Scores the predictor of the first `earlier` trials by how well it ranks the others.

    Returns:
        the score, or None where it has no meaning: too few of the others have an objective, none of the earlier has
        one, or predictions or objectives are all equal.
    """
    later = [trial for trial in trials[earlier:] if trial.objective is not None]
    if not later or not _have_objectives(trials[:earlier]):
        return None
    model = fitted_on(problem, trials[:earlier])
    mean, _ = model.predict(problem.space, problem.space.parse([trial.architecture for trial in later]))
    predicted = [
        trial.with_changes(predicted_mean=float(value), state=TrialState.DONE)
        for trial, value in zip(later, mean, strict=True)
    ]
    return honest_score(predicted)


def _to_learn(settings: Settings) -> Settings:
    """Changes settings so that BONAS learns from all the trials there are, whatever method found them."""
    own = {} if settings.predictor is None else settings.predictor.model_dump(mode="json")
    method = {"name": "bonas", "sampler": "random", "initial": 2, "retrain_every": 1}
    tree = {**settings.tree(), "method": method, "predictor": {**own, "warm_start": None}}
    return parse_settings(tree, "refresh-predictor")


def _is_open(found: SearchFolder) -> bool:
    return found.state() not in ("running", "finished")


def _size(found: SearchFolder) -> int:
    """Counts the trials of a search, but for those in damaged parts: they are done again when it goes on."""
    numbers: set[int] = set()
    for part in TrialHistory(found.trials).parts():
        with suppress(StoreError):
            numbers |= set(read_part(part)["trial"].to_pylist())
    return len(numbers)


def _have_objectives(trials: Sequence[Trial]) -> bool:
    return any(trial.objective is not None for trial in trials)
