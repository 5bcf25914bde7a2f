"""Reports of searches, and summaries of searches and final trainings, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bonas_core.errors import BonasError
from bonas_core.evaluators.base import ClosedEvaluator
from bonas_core.problem import Problem
from bonas_core.report import write_report
from bonas_core.report.analysis import summary
from bonas_core.storage import Location, make_folder
from bonas_core.trials import Objective, Trial, TrialState
from bonas_core.trials.history import TrialHistory
from tasks.dispatch.assignment import Assignment
from tasks.home.search_folder import REPORT_NAME, SearchFolder, searches
from tasks.home.training_folder import CARD_FILE, TrainingFolder, model_alias

_SHORT = {
    "skip_connect": "skip",
    "nor_conv_1x1": "1x1",
    "nor_conv_3x3": "3x3",
    "avg_pool_3x3": "pool",
    "conv1x1-bn-relu": "1x1",
    "conv3x3-bn-relu": "3x3",
    "maxpool3x3": "pool",
}


def short_form(operations: Sequence[str]) -> str:
    """Shortens operations to a few characters, for names of runs."""
    return "/".join(_SHORT.get(operation, operation) for operation in operations[1:-1]) or "direct"


def write_search_report(
    folder: SearchFolder, problem: Problem, trials: Sequence[Trial], state: str, out: Path | None = None
) -> Location:
    """Writes the HTML report of a search, into its own folder or another; returns the file."""
    evaluator = problem.evaluator
    stored = folder.read()
    path = make_folder(out or folder.report) / REPORT_NAME
    write_report(
        path,
        title=folder.id,
        trials=trials,
        objective=problem.objective,
        space=problem.space,
        settings=stored["settings"],
        versions=stored["versions"],
        state=state,
        population=evaluator.objectives() if isinstance(evaluator, ClosedEvaluator) else None,
        random_trials=_random_searches(folder, stored["fingerprint"]),
    )
    return path


def show_search(folder: SearchFolder) -> dict[str, Any]:
    """Gathers what is known of a search, as `bonas show --json` prints it.

    Raises:
        StoreError: there is no such search, or it is damaged.
    """
    stored = folder.read()
    objective = Objective(**stored["objective"])
    trials = TrialHistory(folder.trials).trials()
    found = summary(trials, objective)
    state = folder.state()
    pending = [trial for trial in trials if not trial.state.is_finished]
    # a trial's folder is made when its evaluation begins and removed when it is recorded
    running = sum((folder.checkpoints / str(trial.trial)).is_dir() for trial in pending) if state == "running" else 0
    best = found.best
    waiting = _waiting(folder, pending, stored["settings"]) if state == "running" else []
    return {
        "id": folder.id,
        "state": state,
        "reason": folder.read_state().get("reason", ""),
        "space": stored["space"],
        "seed": stored["seed"],
        "objective": stored["objective"],
        "settings": stored["settings"],
        "budget": folder.read_state().get("budget", stored["settings"]["budget"]),
        "trials": {
            "done": found.done,
            "failed": found.failed,
            "diverged": found.diverged,
            "running": running,
            "proposed": len(pending) - running,
        },
        "waiting": waiting,
        "best": None
        if best is None
        else {
            "trial": best.trial,
            "architecture": best.architecture,
            "objective": best.objective,
            "metrics": dict(best.metrics),
        },
        "evaluations": found.evaluations,
        "distinct": found.distinct,
        "surrogate_s": found.surrogate_s,
        "evaluation_s": found.evaluation_s,
        "honest_correlation": found.honest_correlation,
        "history": str(folder.trials),
        "report": str(folder.report / REPORT_NAME),
        "mlflow": stored.get("mlflow", {}),
        "versions": stored["versions"],
    }


def show_training(folder: TrainingFolder) -> dict[str, Any]:
    """Gathers what is known of final trainings, as `bonas train --json` prints it.

    Raises:
        StoreError: there are none, or a file of theirs is damaged.
    """
    plan = folder.read()
    cells = []
    for place, chosen in enumerate(plan.chosen, start=1):
        own = folder.cell(place)
        result = own.result()
        shown: dict[str, Any] = {"cell": chosen.cell, "origin": chosen.origin, "epochs": max(own.curve(), default=0)}
        if result is not None:
            shown |= {
                "validation": result.objective if "validation_loss" in result.metrics else None,
                "test": result.metrics["test"],
                "validation_top5": result.metrics.get("validation_top5"),
                "test_top5": result.metrics.get("test_top5"),
                "params": result.params,
                "mult_adds": result.mult_adds,
                "cost_s": result.cost_s,
                "model": f"models:/{result.model}@{model_alias(folder.id, place)}",
                "card": str(own.path / CARD_FILE),
            }
        cells.append(shown)
    return {
        "id": folder.id,
        "state": folder.state(),
        "request": plan.request,
        "settings": plan.settings,
        "cells": cells,
        "versions": plan.versions,
    }


def _waiting(folder: SearchFolder, pending: Sequence[Trial], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Lists which trials wait, and for what."""
    found = []
    slots = settings.get("dispatch", {}).get("slots", 1)
    for trial in pending:
        status = Assignment.of(folder.path, trial.trial).read_status() if isinstance(folder.path, Path) else {}
        if status.get("state") == "waiting":
            found.append({"trial": trial.trial, "reason": str(status.get("reason", ""))})
        elif not status and not (folder.checkpoints / str(trial.trial)).is_dir():
            reason = f"for one of the search's own {slots} slots" if slots > 1 else "for the trial before it"
            found.append({"trial": trial.trial, "reason": reason})
    return found


def _random_searches(folder: SearchFolder, fingerprint: str) -> list[list[float]]:
    """Lists the objectives, in order, of the random searches of the same store that evaluated the same way."""
    found = []
    for other in searches(folder.path.parent):
        try:
            stored = other.read()
            if stored["fingerprint"] != fingerprint or stored["settings"]["method"]["name"] != "random":
                continue
            trials = TrialHistory(other.trials).trials()
        except (BonasError, KeyError, TypeError):
            continue  # another search's damage is not this report's business
        objectives = [t.objective for t in trials if t.state is TrialState.DONE and t.objective is not None]
        if objectives and other.id != folder.id:
            found.append(objectives)
    return found
