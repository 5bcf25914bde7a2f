"""From settings to the objects of a search."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from bonas_core.baselines import RandomSearch, RegularisedEvolution
from bonas_core.bonas import Bonas
from bonas_core.errors import SettingsError
from bonas_core.evaluators.base import Evaluator
from bonas_core.registry import resolve
from bonas_core.samplers import EvolutionSampler, ExhaustiveSampler, RandomSampler, Sampler
from bonas_core.settings import CustomEvaluatorSettings, PredictorSettings, Settings
from bonas_core.spaces.base import SearchSpace
from bonas_core.strategy import Strategy
from bonas_core.trials import Objective

_SMALL_SPACE = 50_000  # architectures that can be scored at every step without being noticed


@dataclass(frozen=True)
class Problem:
    """Everything that a search is about, built from its settings."""

    settings: Settings
    evaluator: Evaluator
    strategy: Strategy
    objective: Objective

    @property
    def space(self) -> SearchSpace:
        """The part of the space that can be evaluated."""
        return self.evaluator.space


def build(settings: Settings) -> Problem:
    """Builds space, evaluator and strategy.

    Raises:
        SettingsError: a name cannot be resolved, or settings contradict each other.
        TableError: the evaluator's table cannot be used.
    """
    space = build_space(settings.space)
    evaluator = build_evaluator(settings, space)
    objective = Objective(evaluator.objective, evaluator.unit, evaluator.direction)
    if settings.predictor.targets == "logit" and not objective.is_fraction:
        raise SettingsError(
            f"predictor.targets: logit needs scores in [0, 1], the objective is in {objective.unit} to "
            f"{objective.direction}; use rank or standardise"
        )
    strategy = resolve("method", settings.method.name)(evaluator.space, settings, objective)
    return Problem(settings, evaluator, strategy, objective)


def build_space(name: str) -> SearchSpace:
    """Makes a space by its registered name or `module:object`.

    Raises:
        SettingsError: there is none, or it is not a space.
    """
    try:
        space = resolve("space", name)()
    except TypeError as error:
        raise SettingsError(f"space `{name}`: {error}; name a class that is made without arguments") from None
    if not isinstance(space, SearchSpace):
        raise SettingsError(
            f"space `{name}` is a {type(space).__name__}, not a search space; see bonas_core/spaces/base.py"
        )
    return space


def build_evaluator(settings: Settings, space: SearchSpace) -> Evaluator:
    """Builds the evaluator of a space."""
    options = settings.evaluator.model_dump()
    kind = options.pop("kind")
    try:
        evaluator: Evaluator = resolve("evaluator", kind)(space, **options)
    except TypeError as error:
        if not isinstance(settings.evaluator, CustomEvaluatorSettings):
            raise
        raise SettingsError(f"evaluator `{kind}`: {error}; check the settings under `evaluator`") from None
    return evaluator


def bonas(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """BONAS."""
    method, predictor = settings.method, settings.predictor
    name = str(method.sampler)
    if name == "auto":
        name = "exhaustive" if space.size is not None and space.size <= _SMALL_SPACE else "evolution"
    sampler: Sampler = resolve("sampler", name)(settings)
    if name == "exhaustive" and space.size is None:
        raise SettingsError(f"method.sampler: space `{space.name}` cannot be enumerated; use evolution or random")
    depends_on = {
        "space": space.name,
        "encoding": space.encoding_version,
        "predictor": predictor.model_dump(mode="json"),
        "fractions": objective.is_fraction,
    }
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
    return Bonas(
        space,
        resolve("predictor", str(predictor.kind))(space, predictor),
        sampler,
        pool=method.pool or 0,
        initial=method.initial or 0,
        retrain_every=method.retrain_every or 0,
        loss=str(predictor.loss),
        targets=str(predictor.targets),
        intercept=str(predictor.intercept),
        fractions=objective.is_fraction,
        digest=digest,
    )


def random_search(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """Random search without replacement."""
    return RandomSearch(space)


def regularised_evolution(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """Regularised evolution."""
    method = settings.method
    return RegularisedEvolution(space, method.population, method.tournament, method.repeats)


def evolution_sampler(settings: Settings) -> Sampler:
    """Mutants of tournament winners."""
    method = settings.method
    return EvolutionSampler(method.population, method.tournament, method.random_fraction)


def random_sampler(settings: Settings) -> Sampler:
    """Uniform candidates."""
    return RandomSampler()


def exhaustive_sampler(settings: Settings) -> Sampler:
    """Every architecture."""
    return ExhaustiveSampler()


def gcn(space: SearchSpace, predictor: PredictorSettings) -> Any:
    """The graph convolutional predictor."""
    from bonas_core.predictors.gcn import GCN

    readout = predictor.readout
    if readout == "auto":
        readout = "vertices" if space.positional else "global"
    if readout == "vertices" and not space.positional:
        raise SettingsError(
            f"predictor.readout: vertices of space `{space.name}` have no fixed roles, so their features cannot stand "
            "side by side; use global"
        )
    chosen = predictor.model_dump(
        include={
            "layers",
            "width",
            "normalisation",
            "initialisation",
            "epochs",
            "learning_rate",
            "batch_size",
            "ensemble",
        }
    )
    return GCN(readout=str(readout), **chosen)
