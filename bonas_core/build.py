"""From settings to the objects of a search."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from bonas_core.errors import ModelError, SettingsError
from bonas_core.evaluators.base import Evaluator
from bonas_core.methods.base import Strategy
from bonas_core.methods.bonas import regression
from bonas_core.methods.bonas.strategy import Bonas, FittedPredictor
from bonas_core.methods.local_search import LocalSearch
from bonas_core.methods.random_search import RandomSearch
from bonas_core.methods.regularised_evolution import RegularisedEvolution
from bonas_core.methods.samplers import EvolutionSampler, ExhaustiveSampler, LearningSampler, RandomSampler, Sampler
from bonas_core.registry import resolve
from bonas_core.settings import (
    EVOLUTION_PRESETS,
    CustomEvaluatorSettings,
    PredictorSettings,
    Settings,
    TrainingSettings,
)
from bonas_core.spaces.base import MutationRules, SearchSpace
from bonas_core.storage import store_folder
from bonas_core.trials import Objective

_TRAINING = ("epochs", "learning_rate", "batch_size", "ensemble")
"""Settings of `predictor` that every network has."""
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


def build(settings: Settings, evaluator: Evaluator | None = None) -> Problem:
    """Builds space, evaluator and strategy.

    Args:
        settings: of the search.
        evaluator: an evaluator built from the same settings before, to share what it has read.

    Raises:
        SettingsError: a name cannot be resolved, settings contradict each other, or no images are held out.
        TableError: the evaluator's table cannot be used.
    """
    if isinstance(settings.evaluator, TrainingSettings) and settings.evaluator.validation_images == 0:
        raise SettingsError(
            "evaluator.validation_images: 0 leaves a search nothing to score cells by but the test images; hold some "
            "out, or train a given cell with `bonas train`"
        )
    evaluator = evaluator or build_evaluator(settings, build_space(settings.space))
    objective = Objective(evaluator.objective, evaluator.unit, evaluator.direction)
    if settings.predictor.targets == "logit" and not objective.is_fraction:
        raise SettingsError(
            f"predictor.targets: logit needs scores in [0, 1], the objective is in {objective.unit} to "
            f"{objective.direction}; use rank or standardise"
        )
    space = apply_mutation(evaluator.space, settings.method.mutation)
    strategy = resolve("method", settings.method.name)(space, settings, objective)
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


def apply_mutation(space: SearchSpace, name: str | None) -> SearchSpace:
    """The space with the rule of mutation that is named; None leaves it as it is.

    Raises:
        SettingsError: the space has no such rule.
    """
    if name is None:
        return space
    known = space.mutations if isinstance(space, MutationRules) else ()
    if name not in known:
        remedy = f"use one of {', '.join(known)}" if known else "it has one way to mutate: leave the setting empty"
        raise SettingsError(f"method.mutation: space `{space.name}` has no rule `{name}`; {remedy}")
    assert isinstance(space, MutationRules)
    return space.with_mutation(name)


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
    sampler: Sampler | LearningSampler = resolve("sampler", name)(settings)
    if name == "exhaustive" and space.size is None:
        raise SettingsError(f"method.sampler: space `{space.name}` cannot be enumerated; use evolution or random")
    if isinstance(sampler, LearningSampler):
        sampler.check_space(space)
    start = _warm_start(space, predictor)
    depends_on = {
        "space": space.name,
        "encoding": space.encoding_version,
        # the same predictor may lie in different files
        "predictor": {**predictor.model_dump(mode="json"), "warm_start": None if start is None else start.version},
        "fractions": objective.is_fraction,
    }
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
    depends_on["method"] = method.model_dump(mode="json")
    sampler_digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
    return Bonas(
        space,
        resolve("predictor", str(predictor.kind))(space, predictor),
        sampler,
        start=None if start is None else start.weights,
        pool=method.pool or 0,
        initial=method.initial or 0,
        retrain_every=method.retrain_every or 0,
        retrain_growth=method.retrain_growth or 0.0,
        loss=str(predictor.loss),
        targets=str(predictor.targets),
        intercept=str(predictor.intercept),
        min_noise=predictor.min_noise or regression.MIN_NOISE,
        fractions=objective.is_fraction,
        batch=method.batch,
        shortlist=method.shortlist,
        incumbent=method.incumbent,
        patience=method.patience or 0,
        digest=digest,
        sampler_digest=sampler_digest,
    )


def _warm_start(space: SearchSpace, predictor: PredictorSettings) -> FittedPredictor | None:
    """The predictor that trainings start from, of a file that must fit the space and the settings.

    Raises:
        ModelError: there is no such file, or it is of another space or kind.
    """
    if predictor.warm_start is None:
        return None
    from bonas_core.methods.bonas.model import read_model

    model = read_model(store_folder(predictor.warm_start))
    model.check_space(space)
    shape = ("kind", "layers", "width", "readout", "ensemble")
    for name in shape:
        own, other = getattr(predictor, name), getattr(model.settings, name)
        if own != other:
            raise ModelError(
                f"predictor.warm_start: `{predictor.warm_start}` was trained with predictor.{name} = {other}, not "
                f"{own}; set predictor.{name}={other}, or start without it"
            )
    return model.fitted


def random_search(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """Random search without replacement."""
    return RandomSearch(space)


def regularised_evolution(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """Regularised evolution; a preset's rule of mutation is used where the space has it and no other is set."""
    method = settings.method
    preset = EVOLUTION_PRESETS.get(str(method.preset), {"replacement": False, "mutation": None})
    if method.mutation is None and isinstance(space, MutationRules) and preset["mutation"] in space.mutations:
        space = space.with_mutation(preset["mutation"])
    return RegularisedEvolution(
        space, method.population or 0, method.tournament or 0, method.repeats, preset["replacement"]
    )


def local_search(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """Local search."""
    return LocalSearch(space, settings.method.initial or 0, settings.method.move)


def bananas(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """BANANAS."""
    from bonas_core.methods.bananas import Bananas

    method = settings.method
    return Bananas(space, method.initial or 0, method.retrain_every or 0, objective.is_fraction)


def weaknas(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """WeakNAS."""
    from bonas_core.methods.weaknas import WeakNAS

    method = settings.method
    return WeakNAS(space, method.initial or 0, method.retrain_every or 0, pool=method.pool or 0)


def optuna_tpe(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """Optuna's tree-structured Parzen estimator."""
    return _optuna("tpe", space, settings)


def optuna_gp(space: SearchSpace, settings: Settings, objective: Objective) -> Strategy:
    """Optuna's Gaussian process."""
    return _optuna("gp", space, settings)


def _optuna(sampler: str, space: SearchSpace, settings: Settings) -> Strategy:
    name = settings.method.name
    try:
        from bonas_core.methods import optuna as optuna_samplers
    except ImportError:
        raise SettingsError(
            f"method `{name}` needs Optuna, which is not installed; run: pip install 'bonas[optuna]'"
        ) from None
    make_sampler = getattr(optuna_samplers, sampler)
    return optuna_samplers.OptunaStrategy(space, name, make_sampler, settings.method.initial or 0)


def evolution_sampler(settings: Settings) -> Sampler:
    """Mutants of tournament winners."""
    method = settings.method
    return EvolutionSampler(method.population or 0, method.tournament or 0, method.random_fraction or 0.0)


def random_sampler(settings: Settings) -> Sampler:
    """Uniform candidates."""
    return RandomSampler()


def reinforce_sampler(settings: Settings) -> LearningSampler:
    """What a controller spells that is rewarded with expected improvement."""
    from bonas_core.methods.samplers.reinforce import ReinforceSampler

    return ReinforceSampler(**settings.method.controller.model_dump())


def exhaustive_sampler(settings: Settings) -> Sampler:
    """Every architecture."""
    return ExhaustiveSampler()


def gcn(space: SearchSpace, predictor: PredictorSettings) -> Any:
    """The graph convolutional predictor."""
    from bonas_core.methods.bonas.predictors.gcn import GCN

    readout = predictor.readout
    if readout == "auto":
        readout = "vertices" if space.positional else "global"
    if readout == "vertices" and not space.positional:
        raise SettingsError(
            f"predictor.readout: vertices of space `{space.name}` have no fixed roles, so their features cannot stand "
            "side by side; use global"
        )
    return GCN(
        readout=str(readout),
        **predictor.model_dump(include={"layers", "width", "normalisation", "initialisation", *_TRAINING}),
    )


def mlp(space: SearchSpace, predictor: PredictorSettings) -> Any:
    """The multi-layer perceptron on flattened graphs."""
    from bonas_core.methods.bonas.predictors.mlp import MLP

    return MLP(**predictor.model_dump(include={"widths", *_TRAINING}))


def lstm(space: SearchSpace, predictor: PredictorSettings) -> Any:
    """The recurrent network on graphs as sequences."""
    from bonas_core.methods.bonas.predictors.lstm import LSTM

    return LSTM(**predictor.model_dump(include={"width", *_TRAINING}))
