from datetime import date
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from bonas_core.errors import SettingsError
from bonas_core.methods.bananas import Bananas
from bonas_core.methods.base import Proposal
from bonas_core.methods.bonas.predictors.gcn import GCN
from bonas_core.methods.bonas.strategy import Bonas
from bonas_core.methods.local_search import LocalSearch
from bonas_core.methods.optuna.strategy import OptunaStrategy
from bonas_core.methods.random_search import RandomSearch
from bonas_core.methods.regularised_evolution import RegularisedEvolution
from bonas_core.methods.samplers import EvolutionSampler, ExhaustiveSampler, RandomSampler
from bonas_core.methods.weaknas import WeakNAS
from bonas_core.problem import Problem, build
from bonas_core.registry import names, resolve
from bonas_core.settings import MethodSettings, PredictorSettings, parse_settings
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.pool import PoolSpace
from bonas_core.testing import ToyEvaluator, toy_problem
from bonas_core.trials import Trials


class Endless(NASBench201):
    """The same cells, without saying how many there are."""

    size = None  # type: ignore[assignment]


class Narrow(ToyEvaluator):
    """Knows a hundred cells only."""

    def __init__(self, space: NASBench201, unit: str = "fraction") -> None:
        super().__init__(PoolSpace(space, space.enumerate()[:100]))
        self.unit = unit


NARROW = {"evaluator": {"kind": "test_problem:Narrow"}}


def strategy(**parts: Any) -> Any:
    return toy_problem(**parts).strategy


def version(problem: Problem) -> str:
    """Version of the predictor of a search whose first cells all have the same score."""
    assert isinstance(problem.strategy, Bonas)
    cells = NASBench201().enumerate()[:12]
    ones = np.ones(12, dtype=bool)
    trials = Trials(cells, NASBench201().keys(cells), np.full(12, 0.5), ones, ~ones)
    return problem.strategy.predictor_version(trials, 0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bonas", Bonas),
        ("random", RandomSearch),
        ("regularised-evolution", RegularisedEvolution),
        ("local-search", LocalSearch),
        ("bananas", Bananas),
        ("weaknas", WeakNAS),
        ("optuna-tpe", OptunaStrategy),
        ("optuna-gp", OptunaStrategy),
    ],
)
def test_the_name_of_the_method_decides_the_strategy(name: str, kind: type):
    assert type(strategy(method={"name": name})) is kind


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [("random", RandomSampler), ("evolution", EvolutionSampler), ("exhaustive", ExhaustiveSampler)],
)
def test_the_name_of_the_sampler_decides_the_sampler(sampler: str, kind: type):
    assert type(strategy(method={"sampler": sampler}).sampler) is kind


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        ({"preset": "real"}, "rewire"),
        ({"preset": "nas-benchmarks"}, "add-remove"),
        ({"preset": "nasbench-notebook"}, "flip"),
        ({"preset": "autodl"}, "rewire"),
        ({"preset": "naszilla", "mutation": "rewire"}, "rewire"),
    ],
)
def test_a_preset_of_evolution_sets_the_rule_of_mutation_where_none_is_given(method: dict[str, str], rule: str):
    evolution = strategy(space="nasbench101", method={"name": "regularised-evolution", **method})
    assert evolution._space.mutation == rule


def test_a_preset_of_evolution_suits_a_space_with_one_mutation():
    evolution = strategy(method={"name": "regularised-evolution", "preset": "real"})
    assert evolution.initial == 100


def test_settings_of_local_search_reach_it():
    local = strategy(method={"name": "local-search", "initial": 4, "move": "first"})
    assert (local.initial, local._move) == (4, "first")


def test_an_automatic_sampler_is_exhaustive_in_small_spaces_only():
    assert type(strategy(method={"sampler": "auto"}).sampler) is ExhaustiveSampler
    for space in ("nasbench101", "test_problem:Endless"):
        assert type(strategy(space=space, method={"sampler": "auto"}).sampler) is EvolutionSampler
    assert type(strategy(space="nasbench101", method={"sampler": "auto"}, **NARROW).sampler) is ExhaustiveSampler


def test_a_space_that_cannot_be_enumerated_is_refused_by_the_exhaustive_sampler():
    with pytest.raises(SettingsError, match=r"method\.sampler: space `nasbench201` cannot be enumerated; use"):
        toy_problem(space="test_problem:Endless", method={"sampler": "exhaustive"})


def test_settings_of_evolution_reach_the_sampler():
    method = {"sampler": "evolution", "population": 7, "tournament": 3, "random_fraction": 0.25}
    assert strategy(method=method).sampler == EvolutionSampler(7, 3, 0.25)


def test_settings_of_the_method_reach_the_strategy():
    method = {"initial": 3, "retrain_every": 2, "pool": 17, "sampler": "random"}
    bonas = strategy(method=method)
    assert bonas.initial == 3
    cells = NASBench201().enumerate()[:8]
    ones = np.ones(8, dtype=bool)
    trials = Trials(cells, NASBench201().keys(cells), np.linspace(0, 1, 8), ones, ~ones)
    assert bonas.schedule.training_size(trials) == 7
    assert len(bonas.sample_pool(trials, 0).genotypes) == 17


def test_settings_of_the_predictor_reach_the_network():
    predictor = {
        "layers": 3, "width": 5, "epochs": 7, "learning_rate": 0.5, "batch_size": 9, "ensemble": 2,
        "initialisation": "uniform", "normalisation": "row", "readout": "global",
    }  # fmt: skip
    network = strategy(predictor=predictor).learner.predictor
    assert {name: getattr(network, name) for name in predictor} == predictor


def test_an_automatic_readout_follows_what_the_space_allows():
    assert strategy(predictor={"readout": "auto"}).learner.predictor.readout == "vertices"
    assert strategy(space="nasbench101", predictor={"readout": "auto"}).learner.predictor.readout == "global"


def test_vertices_without_fixed_roles_cannot_be_read_side_by_side():
    with pytest.raises(SettingsError, match=r"predictor\.readout: vertices of space `nasbench101` .*; use global"):
        toy_problem(space="nasbench101", predictor={"readout": "vertices"})


def test_the_space_of_a_search_is_what_its_evaluator_can_evaluate():
    problem = toy_problem(**NARROW)
    assert problem.space.size == 100
    assert problem.strategy.space is problem.space


def test_log_odds_need_fractions_to_maximise():
    toy_problem(predictor={"targets": "logit"})
    with pytest.raises(SettingsError, match=r"predictor\.targets: logit needs scores in \[0, 1\], .* in nats to"):
        toy_problem(predictor={"targets": "logit"}, evaluator={"kind": "test_problem:Narrow", "unit": "nats"})


def test_a_setting_that_an_evaluator_of_your_own_does_not_take_is_named():
    with pytest.raises(SettingsError) as caught:
        toy_problem(evaluator={"fail_evry": 2})
    assert str(caught.value).startswith("evaluator `bonas_core.testing:ToyEvaluator`: ")
    assert "'fail_evry'" in str(caught.value)
    assert str(caught.value).endswith("; check the settings under `evaluator`")


@pytest.mark.parametrize(("part", "kind"), [("space", "space"), ("method", "method"), ("predictor", "predictor")])
def test_unknown_names_are_refused(part: str, kind: str):
    tree = {"space": {"space": "x"}, "method": {"method": {"name": "x"}}, "predictor": {"predictor": {"kind": "x"}}}
    with pytest.raises(SettingsError, match=f"{kind} `x` is unknown; use one of "):
        toy_problem(**tree[part])


def test_the_version_of_a_predictor_follows_its_settings_and_the_meaning_of_scores():
    versions = [
        version(toy_problem(**parts))
        for parts in (
            {},
            {"predictor": {"width": 17}},
            {"predictor": {"loss": "exp"}},
            {"space": "test_problem:Renamed"},
            {"evaluator": {"kind": "test_problem:Narrow", "unit": "nats"}},
        )
    ]
    assert len(set(versions)) == 5
    # what a predictor does not depend on leaves its version alone
    assert version(toy_problem(trials=77, method={"pool": 3, "batch": 2})) == versions[0]


class Renamed(NASBench201):
    """The same cells under another name."""

    name = "renamed"


def test_options_of_your_own_may_be_any_value_of_yaml():
    plain, dated = (
        toy_problem(predictor={"kind": "test_problem:own_predictor", "options": {"since": since}})
        for since in ("never", date(2020, 1, 1))
    )
    assert version(plain) != version(dated)


def own_predictor(space: NASBench201, settings: PredictorSettings) -> GCN:
    """A predictor that is made by a function of one's own."""
    return GCN(epochs=settings.epochs, width=3)


def test_build_takes_stored_settings():
    settings = toy_problem(method={"recipe": "paper"}).settings
    assert build(parse_settings(settings.tree(), "stored")).settings == settings


# Rules of mutation


class Cells101(ToyEvaluator):
    """Knows some cells of NAS-Bench-101."""

    def __init__(self, space: NASBench101) -> None:
        super().__init__(PoolSpace(space, space.enumerate()[:500]))


class Plain(NASBench201):
    """A space with one way to mutate that it has no name for."""

    mutations: tuple[str, ...] = ()


CELLS_101 = {"space": "nasbench101", "evaluator": {"kind": "test_problem:Cells101"}}


@pytest.mark.parametrize("rule", ["rewire", "add-remove", "flip"])
def test_the_rule_of_mutation_reaches_the_space_that_is_searched(rule: str):
    problem = toy_problem(**CELLS_101, method={"mutation": rule, "name": "regularised-evolution"})
    searched = problem.strategy._space  # type: ignore[attr-defined]
    assert searched._space.mutation == rule
    np.testing.assert_array_equal(searched.enumerate(), problem.space.enumerate())
    assert problem.space._space.mutation == "rewire"  # type: ignore[attr-defined]  # what others share stays


def test_without_a_rule_the_space_keeps_its_own():
    problem = toy_problem(**CELLS_101, method={"name": "regularised-evolution"})
    assert problem.strategy._space is problem.space  # type: ignore[attr-defined]
    assert toy_problem(method={"mutation": "redraw"}).space.name == "nasbench201"


def test_rules_that_a_space_does_not_have_are_refused():
    with pytest.raises(SettingsError, match=r"`nasbench101` has no rule `swap`; use one of rewire, add-remove, flip"):
        toy_problem(**CELLS_101, method={"mutation": "swap"})
    with pytest.raises(
        SettingsError, match=r"method\.mutation: space `nasbench201` has no rule `flip`; use one of redraw"
    ):
        toy_problem(method={"mutation": "flip"})
    with pytest.raises(SettingsError, match="it has one way to mutate: leave the setting empty"):
        toy_problem(space="test_problem:Plain", method={"mutation": "redraw"})


# Methods of one's own


class Declared:
    """A method of one's own with settings."""

    class Settings(MethodSettings):
        """Its settings."""

        steps: int = Field(3, ge=1)

    def __init__(self, steps: int, space: NASBench201) -> None:
        self.initial, self.steps, self._random = 0, steps, RandomSearch(space)

    @classmethod
    def from_settings(cls, settings: Settings, space: Any, objective: Any, predictor: Any = None) -> "Declared":
        """Makes it."""
        return cls(settings.steps, space)

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Proposes at random."""
        return self._random.propose(trials, count, seed)


def nothing(space: NASBench201) -> object:
    """Makes no strategy."""
    return object()


def test_options_of_a_method_of_ones_own_are_checked_by_the_settings_that_it_declares():
    own = strategy(method={"name": "test_problem:Declared", "options": {"steps": 7}, "batch": 2})
    assert own.steps == 7
    with pytest.raises(
        SettingsError, match=r"method\.options\.steps: Input should be greater .* `test_problem:Declared`"
    ):
        toy_problem(method={"name": "test_problem:Declared", "options": {"steps": 0}})
    with pytest.raises(SettingsError, match=r"method\.options\.stps: "):
        toy_problem(method={"name": "test_problem:Declared", "options": {"stps": 1}})


def test_what_is_no_strategy_is_refused():
    with pytest.raises(SettingsError, match=r"`test_problem:nothing` makes a object, which has no `initial` and `pro"):
        toy_problem(method={"name": "test_problem:nothing"})
    with pytest.raises(SettingsError, match=r"method `test_problem:nothing`: .*'speed'; check `method.options`"):
        toy_problem(method={"name": "test_problem:nothing", "options": {"speed": 3}})


@pytest.mark.parametrize("name", names("method"))
def test_every_method_that_ships_says_what_its_settings_are(name: str):
    settings = resolve("method", name).Settings
    assert settings.model_fields["name"].default == name
    assert settings.__doc__ != MethodSettings.__doc__
