"""`bonas store check`, `compact` and `export`, in a folder and in S3."""

import atexit
import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
import pytest

from bonas_core.methods.bonas.model import FILE_NAME
from bonas_core.methods.samplers.state import SamplerState
from bonas_core.problem import build
from bonas_core.search import run
from bonas_core.settings import parse_settings
from bonas_core.storage import read_whole, single_writer, store_folder, write_whole
from bonas_core.trials import Trial, TrialState
from bonas_core.trials.history import TrialHistory
from flows.command.app import exit_code
from flows.running.opening import manifest
from tasks.home.search_folder import SearchFolder

SETTINGS = {
    "evaluator": {"kind": "bonas_core.testing:ToyEvaluator", "diverge_every": 4},
    "method": {"initial": 5, "retrain_every": 3, "sampler": "random", "pool": 20},
    "predictor": {"epochs": 2, "width": 4, "layers": 2},
    "budget": {"trials": 6},
}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@cache
def template() -> Path:
    """A search of six trials with a predictor and the state of a sampler."""
    problem = build(settings := parse_settings(SETTINGS, "mine"))
    folder = SearchFolder(Path(mkdtemp()) / "mine")
    atexit.register(shutil.rmtree, folder.path.parent, ignore_errors=True)
    for below in (folder.predictors / "000005-abc", folder.samplers):
        below.mkdir(parents=True)
    folder.write(manifest(problem, settings, "uid", {}))
    log = run(problem, TrialHistory(folder.trials))
    problem.strategy.fit_model(log.trials, 0).write(folder.predictors / "000005-abc" / FILE_NAME)
    SamplerState("v", 5, {}).write(folder.samplers / "000005-v.safetensors")
    return folder.path


def started(store: str, name: str = "mine") -> SearchFolder:
    """A copy of it in a store."""
    folder = store_folder(store) / name
    if isinstance(folder, Path):
        shutil.copytree(template(), folder)
    else:
        for path in template().rglob("*"):
            if path.is_file():
                write_whole(folder / str(path.relative_to(template())), path.read_bytes())
    return SearchFolder(folder)


def bonas(capsys, *arguments: object) -> tuple[int, str]:
    """Exit code, and what was printed to either stream."""
    code = exit_code([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_whole_store_has_no_faults_and_checking_changes_nothing(store: str, capsys):
    folder = started(store)
    before = sorted(path.name for path in folder.trials.iterdir())
    code, printed = bonas(capsys, "store", "check", "--store", store, "--json")
    assert code == 0
    assert json.loads(printed)["searches"] == [
        {
            "id": "mine",
            "running": False,
            "trials": 6,
            "finished": 6,
            "parts": 8,
            "predictors": 1,
            "set_aside": [],
            "faults": [],
        }
    ]
    assert sorted(path.name for path in folder.trials.iterdir()) == before


def test_every_kind_of_fault_is_told(tmp_path: Path, capsys):
    store = str(tmp_path)
    folder = started(store)
    history = TrialHistory(folder.trials)
    for path in (folder.trials / "trial-000001.parquet", folder.predictors / "000005-abc" / FILE_NAME):
        write_whole(path, read_whole(path, 1 << 20)[:100])
    write_whole(folder.samplers / "000005-v.safetensors", b"")
    write_whole(folder.trials / "trial-000000.parquet.corrupt", b"")
    last = history.location / "trial-000005.parquet"
    write_whole(history.location / "trial-000009.parquet", read_whole(last, 1 << 20))
    again = Trial(5, 0, "key", "cell", TrialState.DONE, objective=-1.0)
    history.finish(again)
    history.finish(Trial(7, 0, "key 7", "cell 7", TrialState.DONE, objective=1.0))
    other = SearchFolder(tmp_path / "other")
    other.path.mkdir()
    write_whole(other.path / "search.json", b"{")
    code, printed = bonas(capsys, "store", "check", "--store", store)
    assert code == 1
    faults = [line for line in printed.splitlines() if line.startswith("fault: ")]
    for said in (
        "trial-000001.parquet` cannot be read",
        "is not a predictor",
        "is not the state of a sampler",
        "trials 6 are missing; resume it",
        "trial 5 is recorded with different results",
        "trial 5 is recorded with different architectures",
        "other/search.json` is damaged",
    ):
        assert sum(said in fault for fault in faults) == 1, (said, printed)
    assert len(faults) == 7
    assert "Traceback" not in printed


def test_compaction_leaves_one_part_and_the_same_trials(store: str, capsys):
    folder = started(store)
    before = TrialHistory(folder.trials).trials()
    printed = "id    parts before  after\nmine  8             1\n"
    assert bonas(capsys, "store", "compact", "--store", store) == (0, printed)
    assert TrialHistory(folder.trials).trials() == before
    assert bonas(capsys, "store", "compact", "mine", "--store", store)[1].split()[-2:] == ["1", "1"]


def test_a_search_that_is_being_written_is_not_compacted(store: str, capsys):
    folder = started(store)
    with single_writer(folder.path):
        code, printed = bonas(capsys, "store", "compact", "mine", "--store", store)
        assert (code, len(printed.splitlines())) == (2, 1)
        assert "is being written by process" in printed
        assert bonas(capsys, "store", "compact", "--store", store)[0] == 0  # the others, of which there are none
    assert len(TrialHistory(folder.trials).parts()) == 8


def test_histories_are_exported_in_three_formats(store: str, tmp_path: Path, capsys):
    trials = TrialHistory(started(store).trials).trials()
    for suffix in ("csv", "parquet", "json"):
        out = tmp_path / f"out.{suffix}"
        assert bonas(capsys, "store", "export", "mine", "--store", store, "--out", out) == (0, f"6 trials in {out}\n")
        written = out.read_bytes()
        code, printed = bonas(capsys, "store", "export", "mine", "--store", store, "--out", out)
        assert (code, len(printed.splitlines()), out.read_bytes()) == (2, 1, written)
        assert "is there already; name another file, or replace it with --overwrite" in printed
        out.write_bytes(b"")
        assert bonas(capsys, "store", "export", "mine", "--store", store, "--out", out, "--overwrite")[0] == 0
    csv = pd.read_csv(tmp_path / "out.csv")
    rows = json.loads((tmp_path / "out.json").read_text())
    assert TrialHistory(_only(tmp_path / "out.parquet")).trials() == trials
    for frame, row, trial in zip(csv.itertuples(), rows, trials, strict=True):
        assert (frame.trial, frame.architecture, frame.state) == (trial.trial, trial.architecture, trial.state)
        assert row["objective"] == trial.objective
        assert row["metrics"] == trial.metrics
        assert row["finished_at"] == trial.finished_at.isoformat()
        assert frame.objective == trial.objective or (pd.isna(frame.objective) and trial.objective is None)
    assert csv["metrics.test"].notna().sum() == sum("test" in trial.metrics for trial in trials)


def _only(part: Path) -> Path:
    folder = part.parent / "history"
    folder.mkdir()
    part.rename(folder / part.name)
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "gone"], "search `gone` is not in"),
        (["check", "../x"], "search id `../x`"),
        (["compact", "gone"], "search `gone` is not in"),
        (["export", "mine", "--out", "out.xlsx"], "does not end in .csv, .parquet, .json"),
        (["export", "gone", "--out", "out.csv"], "search `gone` is not in"),
        (["export", "mine", "--out", "none/out.csv"], "cannot be written: No such file or directory"),
        (["export", "mine"], "--out"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], said: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started(str(tmp_path / "store"))
    code, printed = bonas(capsys, "store", *arguments, "--store", tmp_path / "store")
    assert (code, len(printed.splitlines())) == (2, 1), printed
    assert said in printed


def test_a_store_that_is_not_there_is_refused(tmp_path: Path, capsys):
    for command in ("check", "compact"):
        code, printed = bonas(capsys, "store", command, "--store", tmp_path / "none")
        assert (code, printed.count("does not exist; name one with --store")) == (2, 1)
