from importlib.metadata import EntryPoint, EntryPoints

import pytest

from bonas_core import registry
from bonas_core.errors import SettingsError
from bonas_core.registry import names, resolve
from bonas_core.spaces.nasbench201 import NASBench201

KINDS = (
    "space", "evaluator", "method", "sampler", "acquisition", "regression", "predictor", "data", "network",
)  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in registry._BUILT_IN[kind]])
def test_every_name_that_ships_leads_to_something_to_call(kind: str, name: str):
    assert callable(resolve(kind, name))
    assert name in names(kind)


def test_every_kind_is_tested():
    assert set(KINDS) == set(registry._BUILT_IN)


def test_names_are_sorted():
    for kind in KINDS:
        assert names(kind) == sorted(names(kind))


def test_a_module_and_object_need_no_registration():
    assert resolve("space", "bonas_core.spaces.nasbench201:NASBench201") is NASBench201
    assert resolve("space", "bonas_core.spaces.nasbench201:NASBench201.sample") is NASBench201.sample


def test_an_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(SettingsError) as caught:
        resolve("sampler", "magic")
    expected = "sampler `magic` is unknown; use one of evolution, exhaustive, random, reinforce, or module:object"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "name",
    [
        "no_such_module:Thing",
        "bonas_core.registry:Thing",
        "bonas_core.registry:resolve.deeper",
        ":Thing",
        ".relative:Thing",
        "bonas_core:",
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(name: str):
    with pytest.raises(SettingsError) as caught:
        resolve("space", name)
    message = str(caught.value)
    assert message.startswith(f"space `{name}` cannot be loaded (")
    assert message.endswith("); check module and object of module:object")
    assert "\n" not in message


@pytest.fixture
def _installed(monkeypatch):
    points = EntryPoints(
        [
            EntryPoint("mine", "bonas_core.spaces.nasbench201:NASBench201", "bonas.space"),
            EntryPoint("nasbench201", "no_such_module:Impostor", "bonas.space"),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda **select: points.select(**select))


@pytest.mark.usefixtures("_installed")
def test_entry_points_of_other_packages_are_names_too():
    assert resolve("space", "mine") is NASBench201
    assert "mine" in names("space")
    assert "mine" not in names("sampler")


@pytest.mark.usefixtures("_installed")
def test_an_entry_point_cannot_take_the_name_of_what_ships():
    assert resolve("space", "nasbench201") is NASBench201
