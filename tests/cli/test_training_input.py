"""What `bonas train` and `bonas export` cannot use ends with exit code 2 and one line, and leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_store import started

from flows.command.app import exit_code
from tasks.home.run_folder import TRAINING_FILE
from tasks.home.search_folder import SearchFolder

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder."""
    monkeypatch.setenv("BONAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return tmp_path / "home"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Runs a command that must be refused, and returns its one line."""

    def run(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        code = exit_code([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert captured.out == ""
        (line,) = captured.err.strip().splitlines()
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return line

    return run


@pytest.fixture
def search(tmp_path: Path) -> SearchFolder:
    """A search with trials."""
    return started(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digits-final", "--cell", "BONUS"), "cell `BONUS` is unknown; use one of NASNet-A, "),
        (("digits-final", "--cell", "|nor_conv_3x3~0|"), "1 node groups"),
        (("digits-final", "--cell", "BONAS"), "is not a cell of nasbench201"),
        (("digits-final",), "give either a cell or --from ID"),
        (("digits-final", "--cell", "BONAS", "--from", "x"), "give either a cell or --from ID"),
        (("digits-final", "--from", "nothing"), "`nothing` is not in"),
        (("digits-final", "--from", "../nothing"), "an id is 1 to 100 letters"),
        (("digits-fina", "--cell", "BONAS"), "did you mean `digits-final`?"),
        (("BONAS", "--preset", "digits-fina"), "did you mean `digits-final`?"),
        ((), "no recipe is given"),
        (("cifar10-final", "--cell", "BONAS"), "data `cifar10` is not prepared; run `bonas data prepare cifar10"),
        (("nb201-c10-val", "--cell", "BONAS", "--set", "evaluator.table=x.csv"), "evaluator.kind is not training"),
        (("digits-final", "--cell", "BONAS", "--set", "evaluator.epochs=0"), "evaluator.epochs"),
    ],
)
def test_bad_arguments(refused: Refused, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused("train", *arguments)


def test_more_cells_than_there_are(refused: Refused, search: SearchFolder) -> None:
    line = refused("train", "digits-final", "--from", search.id, "--top", "500", "--store", search.path.parent)
    assert "trials that ended well; ask for fewer" in line


@pytest.mark.parametrize("command", ["report", "resume"])
def test_a_training_where_a_search_is_asked_for(refused: Refused, search: SearchFolder, command: str) -> None:
    training = search.path.parent / "final"
    training.mkdir()
    (training / TRAINING_FILE).write_bytes(b"{}")
    line = refused(command, "final", "--store", training.parent)
    assert "`final` is a training, not a search; see it with `bonas show final`" in line


def test_the_id_of_a_search(refused: Refused, search: SearchFolder) -> None:
    arguments = ("--id", search.id, "--store", search.path.parent)
    assert "a search has this id" in refused("train", "digits-final", "--from", search.id, *arguments)


def test_an_export_to_another_kind_of_file(refused: Refused) -> None:
    assert "give a file that ends in .onnx" in refused("export", "models:/a@b", "--to", "network.pt")


def test_an_export_of_what_names_no_model(refused: Refused, tmp_path: Path) -> None:
    line = refused("export", "models:a@b", "--to", tmp_path / "network.onnx")
    assert "model `models:a@b`: write it as models:/NAME@ALIAS" in line


def test_an_export_to_a_file_that_is_there(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    file.write_bytes(b"of somebody")
    line = refused("export", "models:/a@b", "--to", file)
    assert f"--to `{file}` is there already; name another file, or replace it with --overwrite" in line
    assert file.read_bytes() == b"of somebody"
    (folder := tmp_path / "folder.onnx").mkdir()
    assert "is a folder; name a file" in refused("export", "models:/a@b", "--to", folder, "--overwrite")


def test_an_export_without_the_packages_that_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bonas_core.errors import SettingsError
    from bonas_core.image_training.onnx import export_onnx

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        SettingsError, match=r"ONNX needs onnx\w*, which is not installed; run: pip install 'bonas\[onnx"
    ):
        export_onnx(None, tmp_path / "network.onnx")  # type: ignore[arg-type]
