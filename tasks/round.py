"""The units of a BO round as Prefect tasks: thin wrappers, so that each is seen, timed and retried on its own.

Tasks take live objects of the search; nothing of theirs is cached, hashed or persisted by Prefect, because the
history is the only state of a search.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from threading import Event

from prefect import task
from prefect.cache_policies import NO_CACHE

from bonas_core import search
from bonas_core.build import Problem
from bonas_core.errors import ModelError, TrialStoppedError
from bonas_core.methods.base import Proposal, Strategy
from bonas_core.methods.bonas.model import FILE_NAME, PredictorModel, fit_model, read_model
from bonas_core.methods.bonas.strategy import Bonas, Embedded, FittedPredictor
from bonas_core.methods.samplers import Pool
from bonas_core.methods.samplers.state import SamplerState, read_state
from bonas_core.storage import Location, make_folder, remove_file
from bonas_core.storage.tensors import SUFFIX
from bonas_core.trials import Trial, Trials, TrialState
from tasks.dispatch.assignment import Assignment
from tasks.dispatch.slots import place_here
from tasks.dispatch.supervisor import OnEvent as Heard
from tasks.dispatch.supervisor import ignore, train_in_own_process


@task(name="propose", cache_policy=NO_CACHE)
def propose(strategy: Strategy, trials: Trials, count: int, seed: int) -> list[Proposal]:
    """Ask a strategy that has no stages, or for the initial design."""
    return strategy.propose(trials, count, seed)


@task(name="update sampler", cache_policy=NO_CACHE)
def update_sampler(strategy: Bonas, trials: Trials, seed: int, folder: Location) -> SamplerState:
    """Let a sampler that learns do so, and store what it has learnt; a stored state is taken up where none is at hand.

    Two files stay: this round's, and that of the round before, should this round's turn out to be damaged.
    """
    make_folder(folder)
    if not strategy.has_sampler_state(trials, seed):
        for path in sorted(folder.glob(f"*{SUFFIX}"), reverse=True):
            with suppress(ModelError):  # damaged: it can be had again
                stored = read_state(path)
                if strategy.is_sampler_state(stored, trials, seed):
                    strategy.remember_sampler(stored)
                    break
    state = strategy.update_sampler(trials, seed)
    path = folder / f"{state.seen:06d}-{state.version}{SUFFIX}"
    state.write(path)
    others = set(folder.glob(f"*{SUFFIX}")) - {path}
    kept = max((other for other in others if other.name < path.name), default=path)
    for other in others - {kept}:
        remove_file(other)
    return state


@task(name="sample pool", cache_policy=NO_CACHE)
def sample_pool(strategy: Bonas, trials: Trials, seed: int) -> Pool:
    """Draw the candidates of this round."""
    return strategy.sample_pool(trials, seed)


@task(name="retrain GCN", cache_policy=NO_CACHE)
def retrain_predictor(problem: Problem, strategy: Bonas, trials: Trials, seed: int, path: Location) -> PredictorModel:
    """Train the predictor of this round and store it with its regression; a stored one is not trained again."""
    with suppress(ModelError):  # missing or damaged: it can be had again
        model = read_model(path)
        strategy.remember(model.fitted)
        return model
    model = fit_model(problem, strategy, trials, seed)
    make_folder(path.parent)
    model.write(path)
    return model


def predictor_path(folder: Location, trained_on: int, version: str) -> Location:
    """Where the predictor of a version is stored; the file's own name is what the registry looks for."""
    return folder / f"{trained_on:06d}-{version}" / FILE_NAME


@task(name="embed", cache_policy=NO_CACHE)
def embed(strategy: Bonas, trials: Trials, pool: Pool, fitted: FittedPredictor) -> Embedded:
    """Embed trials and candidates."""
    return strategy.embed(trials, pool, fitted)


@task(name="score EI", cache_policy=NO_CACHE)
def score_and_pick(
    strategy: Bonas,
    trials: Trials,
    embedded: Embedded,
    fitted: FittedPredictor,
    count: int,
    seed: int,
) -> list[Proposal]:
    """Refit the regression, score expected improvement, pick the best candidates."""
    return strategy.select(trials, embedded, fitted, count, seed)


class TrialFailedError(Exception):
    """A trial that FAILED: raised so that Prefect shows its run as failed; `trial` is what is to be recorded."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.trial = trial

    def __str__(self) -> str:
        return f"trial {self.trial.trial} {self.trial.state}: {self.trial.error}"


def unless_failed(trial: Trial) -> Trial:
    """The trial, or TrialFailedError if it FAILED."""
    if trial.state is TrialState.FAILED:
        raise TrialFailedError(trial)
    return trial


@task(name="train", cache_policy=NO_CACHE)
def train_here(problem: Problem, trial: Trial, checkpoints: Location, heard: Heard, stop: Event) -> Trial:
    """Evaluate one trial in this process; it may take days, and goes on from its last checkpoint.

    Raises:
        TrialFailedError: its last attempt failed.
    """

    def stopped() -> None:
        if stop.is_set():
            raise TrialStoppedError(f"trial {trial.trial} was given up")

    def progress(epoch: int, figures: Mapping[str, float]) -> None:
        heard({"event": "epoch", "epoch": epoch, "figures": figures})
        stopped()

    def attempting(attempt: int) -> None:
        heard({"event": "attempt", "attempt": attempt})

    settings = problem.settings
    stopped()
    with place_here(settings, f"trial {trial.trial} of {checkpoints.parent.parent.name}", stopped) as slot:
        make_folder(checkpoints)
        return unless_failed(
            search.evaluate_with_retries(
                problem.evaluator,
                trial,
                settings.dispatch.retries,
                timeout_s=settings.dispatch.trial_timeout,
                device=slot.device,
                checkpoints=checkpoints,
                progress=progress,
                attempting=attempting,
            )
        )


@task(name="train", cache_policy=NO_CACHE)
def train_in_child(assignment: Assignment, heard: Heard = ignore, stop: Event | None = None) -> Trial:
    """Have one trial evaluated by a process of its own, on the machine where this task runs.

    Raises:
        TrialFailedError: its last attempt failed.
    """
    return unless_failed(train_in_own_process(assignment, heard, stop))


@task(name="record", cache_policy=NO_CACHE)
def record(log: search.SearchLog, trial: Trial) -> None:
    """Write a result to the history; writing it again changes nothing."""
    log.finish(trial)
