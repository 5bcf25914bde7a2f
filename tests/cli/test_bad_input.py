"""Bad input of every kind ends with exit code 2 and one clear line, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.storage import single_writer
from flows.command.app import exit_code
from flows.running.opening import manifest
from tasks.home.search_folder import SearchFolder

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home folder and working directory; what commands put into the environment is forgotten."""
    before = dict(os.environ)
    monkeypatch.setenv("BONAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], home: Path) -> Callable[..., str]:
    """Runs a command that must be refused, and returns its one line."""

    def run(*arguments: str | Path) -> str:
        before = sorted(home.rglob("*"))
        code = exit_code([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert captured.out == ""
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("bonas: ")
        assert sorted(home.rglob("*")) == before, "something was written"
        return lines[0]

    return run


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """A small table of real cells with made-up accuracies."""
    space = NASBench201()
    texts = space.format(space.enumerate()[::200])
    return pd.DataFrame({"arch_str": texts, "accuracy": [50.0 + row / 10 for row in range(len(texts))]})


def written(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


def with_table(path: Path, *more: str) -> list[str]:
    settings = (f"evaluator.table={path}", "evaluator.objective=accuracy", "evaluator.test=null", *more)
    return ["search", "nb201-c10-val", *(part for setting in settings for part in ("--set", setting))]


def test_an_unknown_preset(refused: Callable[..., str]) -> None:
    line = refused("search", "quikstart")
    assert "`quikstart`" in line
    assert "did you mean `quickstart`?" in line


def test_a_settings_file_that_is_not_there(refused: Callable[..., str]) -> None:
    assert "`mine.yaml` does not exist" in refused("search", "mine.yaml")


def test_malformed_yaml_is_told_with_its_place(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("space: nasbench201\nmethod: {pool: [1\nseed: 2\n")
    assert "line 3" in refused("search", "bad.yaml")


def test_yaml_that_is_not_a_mapping(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    assert "not a mapping" in refused("search", "list.yaml")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("predictor.depth=3", "`predictor.depth` is not a setting; use one of"),
        ("colour=red", "`colour` is not a setting"),
        ("predictor.layers=many", "`predictor.layers`"),
        ("method.pool=-1", "`method.pool`"),
        ("method.recipe=worst", "`method.recipe`"),
        ("budget.stop_at=optimum", "optimum"),
        ("evaluator.kind=guess", "table, training or module:object"),
        ("evaluator.epochs=0", "evaluator.epochs"),
        ("evaluator.validation_images=0", "leaves a search nothing to score cells by"),
        ("space=nasbench999", "`nasbench999` is unknown"),
        ("space=no.module:Space", "cannot be loaded"),
        ("space=math:pi", "space `math:pi`"),
        ("space=collections:OrderedDict", "not a search space"),
        ("method.name=magic", "`magic` is unknown"),
        ("method.sampler=dice", "`dice` is unknown"),
        ("predictor.kind=oracle", "`oracle` is unknown"),
        ("evaluator.data=cats", "`cats`"),
        ("evaluator.network.kind=tower", "`tower`"),
        ("evaluator.network.chanels=3", "chanels"),
        ("tracking.uri=ftp://host", "tracking.uri"),
        ("seed=-1", "`seed`"),
        ("nothing", "name=value"),
        ("budget.trials.more=1", "`trials` is a value"),
    ],
)
def test_an_unknown_or_ill_typed_setting(refused: Callable[..., str], setting: str, said: str) -> None:
    assert said in refused("search", "quickstart", "--set", setting)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (CELL.replace("avg_pool_3x3", "max_pool_3x3"), "`max_pool_3x3` is not an operation"),
        (CELL.replace("|none~0|skip_connect~1|", "|none~0|"), "node 2 has 1 inputs"),
        (CELL.replace("nor_conv_3x3~2", "nor_conv_3x3~1"), "source `1`"),
        (CELL.rpartition("+")[0], "2 node groups"),
        ("", "1 node groups"),
    ],
)
def test_a_cell_with_a_wrong_operation_count_or_source(refused: Callable[..., str], cell: str, said: str) -> None:
    assert said in refused("rank", "nasbench201", cell)


def test_a_table_that_does_not_exist(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "does not exist" in refused(*with_table(tmp_path / "none.csv"))


def test_no_table_at_all(refused: Callable[..., str]) -> None:
    assert "--set evaluator.table=PATH" in refused("search", "nb201-c10-val")


def test_a_table_that_lacks_a_column(refused: Callable[..., str], table: pd.DataFrame, tmp_path: Path) -> None:
    path = written(table, tmp_path / "t.csv")
    assert "no column `speed`" in refused(*with_table(path, "evaluator.objective=speed"))
    path = written(table.drop(columns="arch_str"), tmp_path / "u.parquet")
    assert "no column `architecture` or `arch_str`" in refused(*with_table(path))


def test_a_table_with_a_duplicate_cell(refused: Callable[..., str], table: pd.DataFrame, tmp_path: Path) -> None:
    path = written(pd.concat([table, table.iloc[[7]]]), tmp_path / "t.csv")
    assert f"rows 7 and {len(table)}" in refused(*with_table(path))


def test_a_table_with_nan(refused: Callable[..., str], table: pd.DataFrame, tmp_path: Path) -> None:
    table.loc[5, "accuracy"] = float("nan")
    assert "row 5: `accuracy` is nan" in refused(*with_table(written(table, tmp_path / "t.csv")))


def test_a_table_in_another_unit(refused: Callable[..., str], table: pd.DataFrame, tmp_path: Path) -> None:
    path = written(table, tmp_path / "t.csv")
    assert "evaluator.unit=percent" in refused(*with_table(path, "evaluator.unit=fraction"))
    path = written(table.assign(accuracy=table["accuracy"] / 100), tmp_path / "u.csv")
    assert "evaluator.unit=fraction" in refused(*with_table(path))


def test_a_truncated_parquet(refused: Callable[..., str], table: pd.DataFrame, tmp_path: Path) -> None:
    path = written(table, tmp_path / "t.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    assert f"`{path}` cannot be read" in refused(*with_table(path))


def test_a_table_with_a_wrong_cell(refused: Callable[..., str], table: pd.DataFrame, tmp_path: Path) -> None:
    table.loc[3, "arch_str"] = "|conv~0|"
    assert "cell `|conv~0|`" in refused(*with_table(written(table, tmp_path / "t.csv")))


def test_a_store_that_is_a_file(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file" in refused("search", "quickstart", "--store", tmp_path / "file" / "store")


def test_a_store_that_is_not_writable(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the tests may run as root, whom no mode stops
    assert "not writable" in refused("search", "quickstart", "--store", tmp_path / "store")


def test_a_store_of_another_kind(refused: Callable[..., str]) -> None:
    assert "only folders, file:// and s3:// URIs" in refused(
        "search", "quickstart", "--store", "gopher://bucket/searches"
    )


@pytest.mark.parametrize("name", ["../escape", "a/b", "/etc", ".", "..", "", "-x" * 60, "a\nb", ".hidden"])
@pytest.mark.parametrize("command", ["show", "resume", "report"])
def test_an_id_with_a_path_in_it(refused: Callable[..., str], command: str, name: str) -> None:
    assert "search id" in refused(command, "--", name)


def test_an_id_with_a_path_in_it_for_a_new_search(refused: Callable[..., str]) -> None:
    assert "search id `../up`" in refused("search", "quickstart", "--id", "../up")


def test_a_search_that_does_not_exist(refused: Callable[..., str]) -> None:
    for command in ("show", "resume", "report"):
        assert "search `gone` is not in" in refused(command, "gone")


def started(home: Path, name: str = "there") -> SearchFolder:
    """A search that has been started and has no trials yet."""
    from bonas_core.problem import build
    from flows.running.presets import load_settings

    settings, _ = load_settings("quickstart", seed=1)
    folder = SearchFolder(home / "searches" / name)
    folder.path.mkdir(parents=True)
    folder.write(manifest(build(settings), settings, "uid", {}))
    return folder


def test_going_on_with_another_seed_or_setting_or_a_smaller_budget(refused: Callable[..., str], home: Path) -> None:
    started(home)
    assert "seed = 1, not 2" in refused("search", "quickstart", "--seed", "2", "--id", "there")
    setting = "predictor.width=3"
    assert "predictor.width" in refused("search", "quickstart", "--seed", "1", "--id", "there", "--set", setting)
    assert "larger" in refused("search", "quickstart", "--seed", "1", "--id", "there", "--trials", "3")
    assert "larger" in refused("resume", "there", "--trials", "3")
    assert "dispatch.mode = synchronous" in refused("resume", "there", "--set", "dispatch.mode=asynchronous")
    assert "`dispatch.slot` is not a setting" in refused("resume", "there", "--set", "dispatch.slot=2")


def test_starting_a_search_that_is_running(refused: Callable[..., str], home: Path) -> None:
    folder = started(home)
    with single_writer(folder.path):
        line = refused("search", "quickstart", "--seed", "1", "--id", "there")
    assert "is being written by process" in line


def test_a_damaged_search_file(refused: Callable[..., str], home: Path) -> None:
    folder = started(home)
    (folder.path / "search.json").write_text("{")
    assert "is damaged" in refused("show", "there")


def test_a_search_file_of_a_later_release(refused: Callable[..., str], home: Path) -> None:
    folder = started(home)
    stored = folder.read()
    (folder.path / "search.json").write_text(json.dumps({**stored, "schema": 99}))
    assert "upgrade" in refused("show", "there")


def test_data_that_changed_under_a_search(
    refused: Callable[..., str], home: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    from bonas_core.problem import build
    from flows.running.presets import load_settings

    path = written(table, tmp_path / "t.csv")
    arguments = with_table(path)
    settings, _ = load_settings("nb201-c10-val", overrides=arguments[3::2])
    folder = SearchFolder(home / "searches" / "there")
    folder.path.mkdir(parents=True)
    folder.write(manifest(build(settings), settings, "uid", {}))
    written(table.assign(accuracy=table["accuracy"] + 1), path)
    assert "not what the search was started with" in refused(*arguments, "--id", "there")


def test_a_damaged_history_part(refused: Callable[..., str], home: Path) -> None:
    folder = started(home)
    folder.trials.mkdir()
    (folder.trials / "trial-000000.parquet").write_bytes(b"PAR1 and then nothing")
    assert "trial-000000.parquet` cannot be read" in refused("show", "there")


def test_wrong_flags_and_commands(refused: Callable[..., str]) -> None:
    assert "--sede" in refused("search", "quickstart", "--sede", "1")
    assert "--seed" in refused("search", "quickstart", "--seed", "one")
    assert "PRESET" in refused("search")
    assert "serch" in refused("serch")


def test_ranking_needs_something_to_rank(refused: Callable[..., str]) -> None:
    assert "--pool N" in refused("rank", "nasbench201")
    assert "--pool N" in refused("rank", "nasbench201", CELL, "--pool", "5")
    assert "`nasbench999` is unknown" in refused("rank", "nasbench999", "--pool", "5")


def test_benchmarks_that_do_not_exist(refused: Callable[..., str]) -> None:
    assert "`table9` is unknown" in refused("benchmark", "table9")
    assert "`magic` is unknown" in refused("benchmark", "table2", "--methods", "magic")
    assert "`darts` has no preset" in refused("benchmark", "table2", "--space", "darts")
    assert "evaluator.table=PATH" in refused("benchmark", "table2")
    assert "--methods names none" in refused("benchmark", "table2", "--methods", " ,")
    assert "without methods or settings" in refused("benchmark", "cells", "--methods", "magic")
    assert "without methods or settings" in refused("benchmark", "cells", "--set", "seed=1")


def test_benchmarks_of_tables_that_they_cannot_use(
    refused: Callable[..., str], table: pd.DataFrame, tmp_path: Path
) -> None:
    def options(path: Path) -> list[str]:
        settings = (f"evaluator.table={path}", "evaluator.objective=accuracy", "evaluator.test=null")
        return [part for setting in settings for part in ("--set", setting)]

    texts = written(table, tmp_path / "texts.parquet")
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(texts.read_bytes()[:100])
    (tmp_path / "file").write_text("")
    for name in ("table1", "table2", "transfer"):
        assert f"`{tmp_path / 'none.csv'}` does not exist" in refused(
            "benchmark", name, *options(tmp_path / "none.csv")
        )
        assert f"`{torn}` cannot be read" in refused("benchmark", name, *options(torn))
        assert "`magic` is unknown here" in refused("benchmark", name, *options(texts), "--methods", "magic")
    assert "has no `ops` to count vertices by" in refused("benchmark", "transfer", *options(texts))
    line = refused("benchmark", "table2", *options(texts), "--out", tmp_path / "file")
    assert f"`{tmp_path / 'file'}` cannot be made: File exists; choose another with --out" in line


def test_transfer_needs_cells_of_both_sizes(refused: Callable[..., str], tmp_path: Path) -> None:
    rows = [{"adjacency": "1", "ops": ["input", "output"], "val_acc_108": 0.9}]
    path = written(pd.DataFrame(rows), tmp_path / "small.parquet")
    line = refused("benchmark", "transfer", "--space", "nasbench101", "--set", f"evaluator.table={path}")
    assert f"`{path}` has no cells of 6 vertices" in line


def test_data_sets_that_do_not_exist_or_have_no_source(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "`svhn` is unknown" in refused("data", "prepare", "svhn")
    assert "--source PATH" in refused("data", "prepare", "nasbench201")
    assert "does not exist" in refused("data", "check", "nasbench201")
    assert "does not exist" in refused("data", "prepare", "nasbench201", "--source", tmp_path / "none.csv")


def test_a_table_for_preparation_must_be_whole(
    refused: Callable[..., str], table: pd.DataFrame, tmp_path: Path
) -> None:
    path = written(table, tmp_path / "t.csv")
    assert "takes whole tables" in refused("data", "prepare", "nasbench201", "--source", path)


def test_a_yaml_file_of_ones_own_is_searched_by_its_name(tmp_path: Path) -> None:
    from flows.running.continuing import default_id
    from flows.running.presets import load_settings

    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"evaluator": {"kind": "training"}, "seed": 4}))
    settings, name = load_settings("mine.yaml")
    assert default_id(name, settings, overrides=False) == "mine-s4"
    assert default_id("my module:Space", settings, overrides=False) == "my-module-Space-s4"


def test_images_that_are_missing_or_wrong_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "data `cifar10` is not prepared; run `bonas data prepare cifar10 --source PATH`" in refused(
        "search", "cifar10-small"
    )
    assert "does not exist; give --source PATH" in refused("data", "prepare", "cifar10", "--source", tmp_path / "none")
    other, pickled = tmp_path / "cifar-10-binary.tar.gz", tmp_path / "cifar-10-python.tar.gz"
    for path in (other, pickled):
        path.write_bytes(b"something else")
    assert "is c32a1d4ab5d03f1284b67883e8d87530" in refused("data", "prepare", "cifar10", "--source", other)
    assert "download the binary version" in refused("data", "prepare", "cifar10", "--source", pickled)
    assert "cannot be read" in refused(
        "search", "quickstart", "--set", f"evaluator.data={written_as(tmp_path / 'mine.safetensors', b'not images')}"
    )


def written_as(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
