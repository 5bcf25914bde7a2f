import math
from pathlib import Path

import pytest
import yaml

from bonas_core.errors import SettingsError
from bonas_core.methods.bonas.settings import PAPER
from bonas_core.registry import names
from bonas_core.settings import (
    CustomEvaluatorSettings,
    Settings,
    TableSettings,
    TrainingSettings,
    leaves,
    parse_settings,
    parse_yaml,
    with_override,
)


def parse(**tree: object) -> Settings:
    return parse_settings(tree, "test.yaml")


def test_the_recipe_of_the_paper_fills_in_what_is_left_open():
    settings = parse(method={"recipe": "paper"})
    for part, defaults in {"method": PAPER["method"], "predictor": PAPER["predictor"] | PAPER["gcn"]}.items():
        for name, value in defaults.items():
            assert getattr(getattr(settings, part), name) == value


def test_the_best_recipe_is_the_default():
    assert parse() == parse(method={"recipe": "best"}) == Settings()
    assert parse(method=None, predictor=None) == Settings()


def test_the_recipe_of_the_paper_is_that_of_the_paper():
    paper = parse(method={"recipe": "paper"})
    assert (paper.method.pool, paper.method.initial, paper.method.retrain_every, paper.method.batch) == (
        1000,
        10,
        10,
        1,
    )
    assert paper.method.retrain_growth == 0
    network = paper.predictor
    assert (network.layers, network.width, network.loss, network.readout) == (4, 64, "exp", "global")
    assert (network.epochs, network.learning_rate, network.batch_size, network.ensemble) == (100, 1e-3, 128, 1)


@pytest.mark.parametrize("recipe", ["best", "paper"])
def test_what_is_given_stays_beside_a_recipe(recipe: str):
    settings = parse(method={"recipe": recipe, "pool": 7}, predictor={"width": 5, "epochs": 0})
    assert (settings.method.pool, settings.predictor.width, settings.predictor.epochs) == (7, 5, 0)
    assert settings.predictor.layers == 4


def test_a_recipe_fills_in_empty_fields_too():
    assert parse(predictor={"width": None}).predictor.width == 16


@pytest.mark.parametrize("name", names("method"))
def test_settings_are_complete_once_they_are_parsed(name: str):
    settings = parse(method={"name": name})
    open_ones = {leaf for leaf, value in leaves(settings.tree()) if value is None}
    assert open_ones <= {
        "evaluator.table", "evaluator.test", "method.mutation", "method.preset", "predictor", "predictor.warm_start",
        "budget.hours", "budget.stop_at", "dispatch.trial_timeout", "dispatch.address", "store", "tracking.uri",
        "tracking.experiment",
    }  # fmt: skip
    assert (settings.predictor is None) == (name != "bonas")


@pytest.mark.parametrize(
    ("name", "foreign"), [("random", "pool"), ("bonas", "preset"), ("local-search", "tournament"), ("weaknas", "move")]
)
def test_settings_of_another_method_are_refused(name: str, foreign: str):
    with pytest.raises(SettingsError, match=rf"`method.{foreign}` is not a setting; use one of .*batch, .*name"):
        parse(method={"name": name, foreign: 3})


def test_a_method_without_a_predictor_refuses_settings_of_one():
    with pytest.raises(SettingsError, match=r"`predictor`: method `random` has no predictor; leave this group out"):
        parse(method={"name": "random"}, predictor={"width": 8})


def test_reading_the_settings_of_a_method_of_ones_own_runs_no_code():
    method = parse(method={"name": "nowhere:Nothing", "options": {"depth": 3}, "batch": 2}).method
    assert (method.name, method.options, method.batch) == ("nowhere:Nothing", {"depth": 3}, 2)


@pytest.mark.parametrize(
    ("assignment", "left"),
    [
        ("method.name=random", {"method": {"name": "random"}}),
        ("method.name=bonas", {"method": {"pool": 3, "name": "bonas"}, "predictor": {"width": 8}}),
        ("predictor.kind=mlp", {"method": {"pool": 3}, "predictor": {"kind": "mlp"}}),
    ],
)
def test_what_is_exchanged_by_an_override_takes_its_settings_along(assignment: str, left: dict):
    tree = {"method": {"pool": 3}, "predictor": {"width": 8}}
    assert with_override(tree, assignment) == left
    assert tree == {"method": {"pool": 3}, "predictor": {"width": 8}}


@pytest.mark.parametrize(("preset", "figures"), [("real", (100, 25)), ("autodl", (10, 3)), (None, (30, 10))])
def test_a_preset_of_evolution_fills_in_population_and_tournament(preset: str | None, figures: tuple[int, int]):
    evolution = {"name": "regularised-evolution", "preset": preset}
    method = parse(method=evolution).method
    assert (method.population, method.tournament) == figures
    assert parse(method={**evolution, "population": 7}).method.population == 7


def test_parsing_leaves_the_tree_alone():
    tree = {"method": {"recipe": "paper"}, "predictor": {"width": 3}}
    parse_settings(tree, "test.yaml")
    assert tree == {"method": {"recipe": "paper"}, "predictor": {"width": 3}}


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"method": {"recipe": "paper", "batch": 4}, "seed": 7},
        {"evaluator": {"table": "x.csv", "test": "t"}, "budget": {"stop_at": "optimum", "hours": 1.5}},
        {"evaluator": {"kind": "training", "network": {"kind": "a:B", "depth": 3}}, "budget": {"stop_at": 0.9}},
        {"evaluator": {"kind": "a:B", "anything": [1, {"x": None}]}, "tracking": {"uri": "sqlite:///x"}},
    ],
)
def test_a_stored_tree_means_what_it_meant(tree: dict):
    settings = parse_settings(tree, "test.yaml")
    assert parse_settings(settings.tree(), "stored") == settings
    assert parse_settings(parse_yaml(yaml.safe_dump(settings.tree()), "stored"), "stored") == settings


def test_a_stored_tree_does_not_follow_a_change_of_the_recipe(monkeypatch):
    stored = parse(method={"recipe": "paper"}).tree()
    monkeypatch.setitem(PAPER["method"], "pool", 1)
    assert parse_settings(stored, "stored").tree() == stored
    assert parse(method={"recipe": "paper"}).method.pool == 1


@pytest.mark.parametrize(
    ("evaluator", "model"),
    [
        ({}, TableSettings),
        ({"kind": "table"}, TableSettings),
        ({"kind": "training"}, TrainingSettings),
        ({"kind": "mine:Evaluator", "x": 1}, CustomEvaluatorSettings),
    ],
)
def test_the_kind_decides_the_settings_of_an_evaluator(evaluator: dict, model: type):
    assert type(parse(evaluator=evaluator).evaluator) is model


def test_an_evaluator_of_your_own_gets_all_that_is_written():
    assert parse(evaluator={"kind": "m:E", "x": [1]}).evaluator.model_dump() == {"kind": "m:E", "x": [1]}


FAULTS = [
    ({"budgets": {}}, "`budgets` is not a setting; use one of budget, dispatch, evaluator, method, predictor, seed, "),
    ({"budget": {"trails": 5}}, "`budget.trails` is not a setting; use one of hours, stop_at, trials"),
    ({"predictor": {"depth": 5}}, "`predictor.depth` is not a setting; use one of batch_size, ensemble, epochs, "),
    ({"evaluator": {"tabel": "x"}}, "`evaluator.tabel` is not a setting; use one of direction, kind, objective, "),
    (
        {"evaluator": {"kind": "training", "lr": 1}},
        "`evaluator.lr` is not a setting; use one of augmentation, auxiliary_weight, batch_size, ",
    ),
    ({"budget": {"trials": "many"}}, "`budget.trials`: input should be a valid integer"),
    ({"budget": {"trials": 1.5}}, "`budget.trials`: input should be a valid integer"),
    ({"budget": {"trials": 0}}, "`budget.trials`: input should be greater than or equal to 1 (it is `0`)"),
    ({"budget": 5}, "`budget` is a group of settings; write `name: value` lines below it"),
    ({"method": 5}, "`method` is a group of settings; write `name: value` lines below it"),
    ({"predictor": "gcn"}, "`predictor` is a group of settings; write `name: value` lines below it"),
    ({"method": {"recipe": "fast"}}, "`method.recipe`: input should be 'best' or 'paper' (it is `fast`)"),
    ({"predictor": {"loss": "huber"}}, "`predictor.loss`: input should be 'exp', 'log', 'linear' or 'mse' (it is `hub"),
    ({"predictor": {"learning_rate": 0}}, "`predictor.learning_rate`: input should be greater than 0 (it is `0`)"),
    ({"method": {"random_fraction": 1.5}}, "`method.random_fraction`: input should be less than or equal to 1 (it is"),
    ({"evaluator": {"kind": "tables"}}, "`evaluator`: kind `tables` is not table, training or module:object"),
    ({"evaluator": {"unit": "ratio"}}, "`evaluator.unit`: input should be 'percent' or 'fraction' (it is `ratio`)"),
    ({"evaluator": {"kind": "training", "momentum": 1}}, "`evaluator.momentum`: input should be less than 1 (it is `1"),
    (
        {"evaluator": {"kind": "training"}, "budget": {"stop_at": "optimum"}},
        "budget.stop_at: `optimum` is known for ta",
    ),
    ({"seed": -1}, "`seed`: input should be greater than or equal to 0 (it is `-1`)"),
    ({"seed": 2**63}, "`seed`: input should be less than or equal to 9223372036854775807"),
    ({"dispatch": {"backend": "slurm"}}, "`dispatch.backend`: input should be 'inline', 'thread', 'process', 'dask', "),
    ({"budget": {"stop_at": "best"}}, "`budget.stop_at`: input should be a finite number or `optimum` (it is `best`"),
    ({"budget": {"stop_at": math.nan}}, "`budget.stop_at`: input should be a finite number or `optimum` (it is `nan`"),
    ({"budget": {"stop_at": math.inf}}, "`budget.stop_at`: input should be a finite number or `optimum` (it is `inf`"),
    ({1: 2}, "`1`: keys should be strings"),
    ({"evaluator": None}, "`evaluator` is a group of settings; "),
    ({"evaluator": "table"}, "`evaluator` is a group of settings; "),
    ({"method": {"name": None}}, "`method.name`: input should be a valid string"),
    (
        {"evaluator": {"kind": "training", "network": {"channels": 0}}},
        "`evaluator.network.channels`: input should be gr",
    ),
]


@pytest.mark.parametrize(("tree", "fault"), FAULTS, ids=[str(tree) for tree, _ in FAULTS])
def test_a_fault_is_told_in_one_line_that_names_the_setting(tree: dict, fault: str):
    with pytest.raises(SettingsError) as caught:
        parse_settings(tree, "test.yaml")
    message = str(caught.value)
    assert message.startswith(f"settings `test.yaml`: {fault}")
    assert "\n" not in message
    assert "Settings" not in message


@pytest.mark.parametrize("tree", [None, [], "text", 5])
def test_what_is_no_mapping_is_refused(tree: object):
    with pytest.raises(SettingsError, match="settings `x`: the top level is not a mapping; write `name: value` lines"):
        parse_settings(tree, "x")


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse().seed = 3


def test_yaml_is_read_as_a_tree():
    assert parse_yaml("budget:\n  trials: 5\n", "x") == {"budget": {"trials": 5}}
    assert parse_yaml("", "x") == {}
    assert parse_yaml("# nothing\n", "x") == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("budget:\n  trials: [5\n", "line 3, column 1: not YAML (expected ',' or ']', but got "),
        ("a: b: c", "line 1, column 5: not YAML (mapping values are not allowed here); correct that line"),
        ("\tbudget: 1", "line 1, column 1: not YAML ("),
        ("x: !!python/object:os.system {}", "line 1, column 4: not YAML (could not determine a constructor"),
        ("x: \x00", "not YAML ("),
        ("x: 2020-13-45", "not YAML (month must be in 1..12); correct the file"),
        ("- 1\n- 2\n", "the top level is not a mapping; write `name: value` lines"),
        ("just text", "the top level is not a mapping; write `name: value` lines"),
    ],
)
def test_a_fault_of_yaml_is_told_in_one_line_with_its_place(text: str, fault: str):
    with pytest.raises(SettingsError) as caught:
        parse_yaml(text, "x.yaml")
    assert str(caught.value).startswith(f"settings `x.yaml`: {fault}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "tree"),
    [
        ("seed=3", {"seed": 3, "budget": {"trials": 5}}),
        ("budget.trials=50", {"budget": {"trials": 50}}),
        ("budget.hours=1.5", {"budget": {"trials": 5, "hours": 1.5}}),
        ("evaluator.network.channels=4", {"budget": {"trials": 5}, "evaluator": {"network": {"channels": 4}}}),
        ("evaluator.table=a=b.csv", {"budget": {"trials": 5}, "evaluator": {"table": "a=b.csv"}}),
        ("predictor.width=", {"budget": {"trials": 5}, "predictor": {"width": None}}),
        ("predictor.options={a: [1, 2]}", {"budget": {"trials": 5}, "predictor": {"options": {"a": [1, 2]}}}),
        ("method.repeats=true", {"budget": {"trials": 5}, "method": {"repeats": True}}),
        (" seed =3", {"seed": 3, "budget": {"trials": 5}}),
    ],
)
def test_an_override_puts_one_value_in(assignment: str, tree: dict):
    assert with_override({"budget": {"trials": 5}}, assignment) == tree


def test_an_override_leaves_the_tree_alone():
    tree = {"budget": {"trials": 5}}
    with_override(tree, "budget.trials=9")
    assert tree == {"budget": {"trials": 5}}


@pytest.mark.parametrize(
    ("assignment", "fault"),
    [
        ("budget.trials", "write it as name=value, for instance budget.trials=50"),
        ("=5", "write it as name=value"),
        ("budget..trials=5", "write it as name=value"),
        ("budget.trials=[5", "the value is not YAML; put quotes around it"),
        ("store=2020-13-45", "the value is not YAML; put quotes around it"),
        ("seed.x=5", "`seed` is a value, not a group of settings; set it as a whole"),
    ],
)
def test_a_faulty_override_is_told_in_one_line(assignment: str, fault: str):
    with pytest.raises(SettingsError) as caught:
        with_override({"seed": 1}, assignment)
    assert str(caught.value).startswith(f"--set `{assignment}`: {fault}")
    assert "\n" not in str(caught.value)


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path):
    # YAML 1.1 reads 1e-3 as text; the settings take it as the number that was meant
    tree = with_override({}, "predictor.learning_rate=1e-3")
    assert parse_settings(tree, "x").predictor.learning_rate == 1e-3


def test_every_setting_is_described_and_registered_names_are_offered():
    schema = Settings.model_json_schema()
    methods, predictors = (schema["properties"][group]["anyOf"] for group in ("method", "predictor"))
    for model in (schema, *schema["$defs"].values(), *methods, *predictors):
        for name, found in model["properties"].items():
            described = found.get("description") or found.get("anyOf") or "const" in found or "$ref" in str(found)
            assert described, f"{model['title']}.{name}"
            assert "<" not in found.get("description", ""), f"{name}: forms read descriptions as Markdown"
    assert schema["properties"]["space"]["anyOf"][0]["enum"] == names("space")
    assert sorted(method["title"] for method in methods) == sorted([*names("method"), "your own"])
    assert sorted(predictor["title"] for predictor in predictors) == sorted([*names("predictor"), "your own"])
    assert methods[0]["title"] == "bonas"
    assert methods[0]["properties"]["sampler"]["anyOf"][0]["enum"][-1] == "auto"
    assert "default" not in methods[0]["properties"]["pool"]  # a form would send it back, whatever the recipe says
