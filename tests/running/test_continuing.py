"""What may change when a search goes on, and what a default id stands for."""

from __future__ import annotations

from typing import Any

import pytest

from bonas_core.errors import SettingsError
from bonas_core.settings import Settings, leaves, parse_settings, with_override
from bonas_core.storage import check_id
from flows.running.continuing import FREEDOMS, check_continued, default_id, freedom

BEGAN = {"evaluator": {"table": "/a.parquet"}, "budget": {"trials": 100, "hours": 2}, "dispatch": {"slots": 2}}


def changed(*assignments: str, before: dict[str, Any] | None = None) -> Settings:
    """Settings of a search with some of them changed."""
    tree = dict(before or BEGAN)
    for assignment in assignments:
        tree = with_override(tree, assignment)
    return parse_settings(tree, "test")


def asynchronous() -> dict[str, Any]:
    return with_override(BEGAN, "dispatch.mode=asynchronous")


@pytest.mark.parametrize(
    "assignment",
    [
        "store=/elsewhere",
        "tracking.uri=http://elsewhere:5000",
        "tracking.experiment=another",
        "dispatch.backend=process",
        "dispatch.slots=8",
        "dispatch.slots=1",
        "dispatch.device=cpu",
        "dispatch.trial_timeout=60",
        "dispatch.retries=0",
        "dispatch.address=tcp://scheduler:8786",
        "dispatch.deployment=train-trial/another",
        "evaluator.table=/moved/a.parquet",
        "budget.trials=101",
        "budget.hours=3",
        "budget.hours=",
        "budget.stop_at=0.9",
    ],
)
def test_a_search_goes_on_with_what_decides_none_of_its_trials(assignment: str) -> None:
    settings = changed(assignment)
    check_continued("search `s`", BEGAN, settings)
    reason = freedom(assignment.partition("=")[0], settings)
    assert reason is not None
    assert reason.reason


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("seed=1", "search `s` was started with seed = 0, not 1; keep it at 0, or start another with --id"),
        ("space=darts", "space = nasbench201, not darts; keep it at nasbench201"),
        ("method.batch=2", "method.batch = 1, not 2"),
        ("predictor.width=3", "predictor.width"),
        ("evaluator.objective=other", "evaluator.objective"),
        ("dispatch.mode=asynchronous", "dispatch.mode = synchronous, not asynchronous; keep it at synchronous"),
        ("budget.trials=99", "budget.trials = 100, not 99; give a larger one, or start another with --id"),
        ("budget.hours=1", "budget.hours = 2.0, not 1.0; give a larger one"),
    ],
)
def test_a_search_does_not_go_on_with_what_decides_its_trials(assignment: str, line: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        check_continued("search `s`", BEGAN, changed(assignment))
    assert line in str(refusal.value)


def test_in_asynchronous_mode_the_slots_stay() -> None:
    check_continued("search `s`", asynchronous(), changed("dispatch.backend=thread", before=asynchronous()))
    with pytest.raises(SettingsError, match=r"dispatch\.slots = 2, not 3; keep it at 2"):
        check_continued("search `s`", asynchronous(), changed("dispatch.slots=3", before=asynchronous()))
    with pytest.raises(SettingsError, match=r"dispatch\.mode = asynchronous, not synchronous"):
        check_continued("search `s`", asynchronous(), changed("dispatch.slots=3"))


def test_images_may_have_been_moved() -> None:
    before = {"evaluator": {"kind": "training", "data": "/a.safetensors"}}
    check_continued("training `t`", before, changed("evaluator.data=/moved/a.safetensors", before=before))


def test_an_unlimited_search_is_not_limited_later() -> None:
    with pytest.raises(SettingsError, match=r"budget\.hours = None, not 5\.0"):
        check_continued("search `s`", {}, changed("budget.hours=5", before={}))


def test_every_freedom_is_one_of_settings_that_there_are() -> None:
    training = with_override({}, "evaluator.kind=training")
    names = {name for tree in ({}, training) for name, _ in leaves(parse_settings(tree, "test").tree())}
    for free in FREEDOMS:
        assert any(freedom(name, changed()) is free for name in names), free.names


@pytest.mark.parametrize("assignment", ["seed=1", "method.batch=2", "dispatch.mode=asynchronous"])
def test_a_default_id_differs_where_the_search_could_not_go_on(assignment: str) -> None:
    assert default_id("mine", changed(), True) != default_id("mine", changed(assignment), True)


@pytest.mark.parametrize("assignment", ["store=/b", "tracking.uri=http://b", "dispatch.slots=3", "budget.trials=101"])
def test_a_default_id_is_that_of_the_search_that_can_go_on(assignment: str) -> None:
    assert default_id("mine", changed(), True) == default_id("mine", changed(assignment), True)


def test_default_ids_of_asynchronous_searches_differ_by_their_slots() -> None:
    one, other = (changed(f"dispatch.slots={slots}", before=asynchronous()) for slots in (2, 3))
    assert default_id("mine", one, True) != default_id("mine", other, True)


def test_default_ids_differ_by_the_files_that_are_read() -> None:
    assert default_id("mine", changed(), True) != default_id("mine", changed("evaluator.table=/b.parquet"), True)


def test_long_names_are_acceptable_ids_that_differ() -> None:
    settings = changed(f"seed={2**63 - 1}")
    one, other = (default_id("n" * 120 + end, settings, True) for end in ("-top1", "-top3"))
    assert check_id(one) != check_id(other)
