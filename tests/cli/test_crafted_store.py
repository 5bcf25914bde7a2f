"""A store that somebody else made may hold anything: it is refused in one line with exit code 2, and nothing is run."""

import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from test_store import bonas, started

from bonas_core.errors import InputError, ModelError, SettingsError
from bonas_core.methods.bonas.model import FILE_NAME, read_model
from bonas_core.methods.samplers.state import SamplerState, read_state
from bonas_core.search import SearchLog
from bonas_core.settings import parse_yaml, with_override
from bonas_core.storage import parse_json
from bonas_core.testing import toy_problem
from bonas_core.trials.history import SCHEMA, TrialHistory
from flows.running.opening import fetched_model
from tasks.home.search_folder import SearchFolder


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BONAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def search(tmp_path: Path) -> SearchFolder:
    return started(str(tmp_path / "store"))


def refused(capsys, command: str, search: SearchFolder) -> str:
    """The one line with which a command refuses a search."""
    code, printed = bonas(capsys, command, search.id, "--store", search.path.parent)
    assert code == 2, printed
    assert len(printed.strip().splitlines()) == 1, printed
    assert "Traceback" not in printed
    return printed


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


DEEP = 100_000 * "["
MANIFESTS = {
    "nested deeply": lambda stored: '{"a": ' + DEEP,
    "nested": lambda stored: json.dumps({**stored, "settings": json.loads(40 * '{"a": ' + "1" + 40 * "}")}),
    "a list": lambda stored: "[1]",
    "a number": lambda stored: "1e999",
    "binary": lambda stored: "\0\1",
    "huge": lambda stored: json.dumps({**stored, "more": "x" * (1 << 24)}),
    "no settings": lambda stored: json.dumps({**stored, "settings": None}),
    "empty settings": lambda stored: json.dumps({**stored, "settings": {}}),
    "a list for a budget": lambda stored: json.dumps({**stored, "settings": {**stored["settings"], "budget": [1]}}),
    "slots as text": lambda stored: json.dumps(
        {**stored, "settings": {**stored["settings"], "dispatch": {"slots": "2"}}}
    ),
    "a name that is a list": lambda stored: json.dumps({**stored, "settings": {**stored["settings"], "space": [1]}}),
    "no time": lambda stored: json.dumps({name: stored[name] for name in stored if name != "created_at"}),
    "no schema": lambda stored: json.dumps({name: stored[name] for name in stored if name != "schema"}),
    "a key of many lines": lambda stored: json.dumps({**stored, "versions": {"\n" + 9_999 * "x": 1}}),
    "no seed": lambda stored: json.dumps({name: stored[name] for name in stored if name != "seed"}),
    "a query for an id": lambda stored: json.dumps({**stored, "uid": "' or '1' = '1"}),
    "another objective": lambda stored: json.dumps({**stored, "objective": {"name": "x", "direction": ["up"]}}),
    "one objective too many": lambda stored: json.dumps({**stored, "objective": {"name": "x", "more": "y"}}),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(name: str, search: SearchFolder, capsys):
    text = MANIFESTS[name](json.loads((search.path / "search.json").read_text()))
    (search.path / "search.json").write_text(text)
    for command in ("show", "resume", "report"):
        said = refused(capsys, command, search)
        assert "search.json" in said
        assert len(said) < 600


def test_settings_in_a_manifest(search: SearchFolder, capsys):
    stored = json.loads((search.path / "search.json").read_text())
    stored["settings"]["evaluator"] = {"kind": "os:system"}
    (search.path / "search.json").write_text(json.dumps(stored))
    assert "os:system" in refused(capsys, "resume", search)
    stored["settings"]["evaluator"] = {"kind": "../../evil:run"}
    (search.path / "search.json").write_text(json.dumps(stored))
    assert "evil" in refused(capsys, "resume", search)


def test_a_manifest_does_not_decide_where_is_written(search: SearchFolder, tmp_path: Path):
    from flows.running.opening import stored_settings

    stored = json.loads((search.path / "search.json").read_text())
    stored["settings"]["store"] = str(tmp_path / "elsewhere")
    (search.path / "search.json").write_text(json.dumps(stored))
    assert stored_settings(search.id, str(search.path.parent), None).store == str(search.path.parent)


STATES = ["[]", '{"state": 1, "budget": [1]}', '{"state": "paused", "budget": {}}', '{"a": ' + DEEP, "\0"]


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_is_none_is_ignored(state: str, search: SearchFolder, capsys):
    (search.path / "state.json").write_text(state)
    code, printed = bonas(capsys, "show", search.id, "--store", search.path.parent, "--json")
    assert code == 0
    assert json.loads(printed)["state"] == "interrupted"
    assert bonas(capsys, "list", "--store", search.path.parent)[0] == 0


def test_one_damaged_search_is_a_warning_in_the_list_of_all(search: SearchFolder, capsys):
    started(search.path.parent, "whole")
    stored = json.loads((search.path / "search.json").read_text())
    (search.path / "search.json").write_text(json.dumps({**stored, "settings": {}}))
    code, printed = bonas(capsys, "list", "--store", search.path.parent)
    assert code == 0
    (warning,) = [line for line in printed.splitlines() if line.startswith("warning: ")]
    assert "search.json` is damaged (settings: space: Field required)" in warning
    assert any(line.startswith("whole ") for line in printed.splitlines())


def test_a_whole_search_file_is_read_as_it_was_written(search: SearchFolder):
    stored = json.loads((search.path / "search.json").read_text())
    assert stored == {"schema": 1, **search.read()}


@pytest.mark.parametrize(
    "place",
    [
        "search.json",
        "trials",
        "trials/trial-000001.parquet",
        "predictors/000005-abc",
        f"predictors/000005-abc/{FILE_NAME}",
        "samplers/000005-v.safetensors",
        "checkpoints",
        "checkpoints/3",
        "report",
        "state.json",
        ".lock",
    ],
)
def test_links_out_of_the_store(place: str, search: SearchFolder, tmp_path: Path, capsys):
    inside, outside = search.path / place, tmp_path / "outside"
    inside.parent.mkdir(exist_ok=True)
    if inside.exists():
        inside.rename(outside)
    else:
        outside.mkdir()
    inside.symlink_to(outside)
    before = sorted(tmp_path.joinpath("outside").rglob("*"))
    for command in ("show", "resume", "report"):
        assert f"`{inside}` is a symbolic link" in refused(capsys, command, search)
    assert sorted(tmp_path.joinpath("outside").rglob("*")) == before


def test_a_folder_that_is_a_link_is_neither_opened_nor_listed(search: SearchFolder, tmp_path: Path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "linked").symlink_to(search.path)
    for command in (["show", "linked"], ["train", "BONAS", "--preset", "digits-final", "--id", "linked"]):
        code, printed = bonas(capsys, *command, "--store", tmp_path / "other")
        assert (code, len(printed.splitlines())) == (2, 1)
        assert "`linked` is a symbolic link" in printed
    assert bonas(capsys, "list", "--store", tmp_path / "other")[1].startswith("no searches in")


def test_links_in_the_folder_of_a_search_that_is_still_to_be_started(tmp_path: Path, capsys):
    (tmp_path / "store" / "new").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "store" / "new" / "trials").symlink_to(tmp_path / "outside")
    code, printed = bonas(capsys, "search", "quickstart", "--store", tmp_path / "store", "--id", "new")
    assert (code, len(printed.splitlines())) == (2, 1)
    assert "is a symbolic link" in printed


def test_a_pipe_in_the_place_of_a_file(search: SearchFolder, capsys):
    os.mkfifo(search.trials / "trial-000009.parquet")
    assert "is a device" in refused(capsys, "show", search)


def part(search: SearchFolder, table: pa.Table) -> None:
    pq.write_table(table.replace_schema_metadata(SCHEMA.metadata), search.trials / "trial-000004.parquet")


def row(search: SearchFolder) -> pa.Table:
    return pq.ParquetFile(search.trials / "trial-000005.parquet").read()


def with_column(table: pa.Table, name: str, value: object) -> pa.Table:
    place = SCHEMA.get_field_index(name)
    kind = SCHEMA.field(name).type
    return table.set_column(place, pa.field(name, kind), pa.array([value], type=kind))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("trial", -1, "a trial has the number -1"),
        ("trial", 2**62, "a trial has the number 4611686018427387904"),
        ("state", "RUNNING", "a trial is in state `RUNNING`"),
        ("state", "\n" * 1000, "a trial is in state"),
        ("seed", None, "a trial has no `seed`"),
        ("objective", float("nan"), "an objective is not a number"),
        ("finished_at", 2**62, "holds what no search writes"),
    ],
)
def test_parts_of_a_history(column: str, value: object, said: str, search: SearchFolder, capsys):
    table = with_column(row(search), "state", "DONE")
    table = with_column(with_column(table, "objective", 0.5), column, value)
    part(search, table)
    assert said in refused(capsys, "show", search)
    with pytest.raises(InputError, match=re.escape(said)):
        SearchLog(toy_problem(6), TrialHistory(search.trials))


def test_a_part_with_an_architecture_that_is_none(search: SearchFolder, capsys):
    part(search, with_column(with_column(row(search), "trial", 4), "architecture", "__import__('os')"))
    (search.trials / "round-000000-000000.parquet").rename(search.trials / "x")
    with pytest.raises(InputError, match="__import__"):
        SearchLog(toy_problem(6), TrialHistory(search.trials))


def test_a_part_that_unpacks_to_more_than_there_is_memory(search: SearchFolder, capsys):
    table = pa.concat_tables([with_column(row(search), "error", "x" * 1000)] * 100)
    bomb = pa.concat_tables([table] * 200).combine_chunks()
    part(search, bomb)
    assert (search.trials / "trial-000004.parquet").stat().st_size < 4_000_000
    import bonas_core.trials.history as module

    before, module._LARGEST = module._LARGEST, 5_000_000
    try:
        assert "more than a search has" in refused(capsys, "show", search)
    finally:
        module._LARGEST = before


def changed(path: Path, **changes: object) -> Path:
    """A model with parts of its description or arrays replaced."""
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    described = json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["bonas"])
    arrays = load_file(path)
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif isinstance(value, dict):
            described[name] |= value
        else:
            described[name] = value
    save_file(arrays, path, metadata={"bonas": json.dumps(described)})
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "../../../../etc/evil"},
        {"version": "a/b"},
        {"version": 7},
        {"space": ["nasbench201"]},
        {"trained_on": "many"},
        {"settings": {"width": 4096, "layers": 64, "ensemble": 64}},
        {"settings": {"kind": "os:system"}},
        {"regression": {"alpha": "x"}},
        {"regression/weights": np.zeros(3)},
        {"regression/basis": np.full((2, 2), np.nan)},
        {"targets/nodes": np.zeros((0,))},
        {"targets/nodes": np.zeros(3, dtype=np.int64)},
        {"objective": {"direction": "maximise", "more": 1}},
        {"losses": "x" * 10, "format": 2},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_models(changes: dict, search: SearchFolder, tmp_path: Path):
    path = changed(search.predictors / "000005-abc" / FILE_NAME, **changes)
    problem = toy_problem(6)
    with pytest.raises((ModelError, SettingsError)) as caught:  # the latter once the space is known
        read_model(path).predict(problem.space, problem.space.sample(3, np.random.default_rng(0)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", ["pickle", "deep", "empty", "header"])
def test_files_that_are_no_models_or_states(content: str, search: SearchFolder, tmp_path: Path, capsys):
    path = search.predictors / "000005-abc" / FILE_NAME
    header = json.dumps({"__metadata__": {"bonas": '{"format": 1, "x": ' + DEEP}}).encode()
    path.write_bytes(
        {
            "pickle": pickle.dumps(Trap(tmp_path / "sprung")),
            "deep": len(header).to_bytes(8, "little") + header,
            "empty": b"",
            "header": (1 << 60).to_bytes(8, "little") + b"{}",
        }[content]
    )
    with pytest.raises(ModelError, match="is not a predictor"):
        read_model(path)
    with pytest.raises(ModelError, match="is not the state of a sampler"):
        read_state(path)
    assert not (tmp_path / "sprung").exists()
    code, printed = bonas(capsys, "store", "check", "--store", search.path.parent)
    assert code == 1
    assert printed.count("fault:") == 1


def test_a_state_of_another_sampler_is_not_taken_up():
    controller = {"sampler": "reinforce", "controller": {"units": 4, "samples": 10}, "initial": 2, "pool": 10}
    problem = toy_problem(4, method=controller)
    with pytest.raises(ModelError, match="has arrays of another sampler"):
        problem.strategy.remember_sampler(SamplerState("v", 2, {"weight/x": np.zeros((3, 3))}))


def test_a_registered_model_is_kept_in_its_own_folder(search: SearchFolder, tmp_path: Path, monkeypatch):
    model = read_model(search.predictors / "000005-abc" / FILE_NAME)
    monkeypatch.setattr("tasks.mlflow_store.registry.load_registered", lambda tracking_uri, uri: model)
    path = fetched_model("models:/x@champion", None)
    assert path.parent == tmp_path / "home" / "models"


BILLION = "\n".join(["a: &a0 [x, x]", *(f"b{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9)), "c: *a9"])


@pytest.mark.parametrize(
    "text",
    [100_000 * "[", "a: " + 30 * "{a: " + "1" + 30 * "}", BILLION, "a: &a [*a]", 20_000 * "- " + "x"],
    ids=["deep", "nested", "laughs", "cycle", "dashes"],
)
def test_yaml(text: str, tmp_path: Path, capsys, monkeypatch):
    with pytest.raises(SettingsError):
        parse_yaml(text, "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    code, printed = bonas(capsys, "search", "mine.yaml")
    assert (code, len(printed.splitlines())) == (2, 1)
    assert len(printed) < 400


def test_yaml_on_the_command_line():
    for value in (100_000 * "[", "&a [*a]"):
        with pytest.raises(SettingsError) as caught:
            with_override({}, f"evaluator={value}")
        assert len(str(caught.value)) < 400
    assert with_override({}, "evaluator={kind: training}") == {"evaluator": {"kind": "training"}}


def test_json_of_a_store_is_limited_in_depth():
    assert parse_json(10 * '{"a": ' + "1" + 10 * "}")
    for text in (50 * '{"a": ' + "1" + 50 * "}", '{"a": ' + 50 * "[" + 50 * "]" + "}", '{"a": ' + DEEP):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(text)
