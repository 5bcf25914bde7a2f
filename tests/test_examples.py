"""The examples of the documentation, run as a person runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def run(example: Path, *arguments: str) -> str:
    """What an example prints; it sees the project's packages and its own folder, and nothing else of the project."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=example.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_an_example_of_everything_that_can_be_ones_own():
    names = [path.stem for path in EXAMPLES]
    assert names == ["ask_tell", "own_function", "own_method", "own_predictor", "own_space"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_finds_something(example: Path):
    assert len(example.read_text().splitlines()) <= 60
    assert run(example).startswith("best")


def test_asking_and_telling_goes_on_in_a_folder(tmp_path: Path):
    example = REPOSITORY / "examples" / "ask_tell.py"
    first = run(example, str(tmp_path / "kept"))
    parts = sorted(path.name for path in (tmp_path / "kept" / "trials").iterdir())
    assert run(example, str(tmp_path / "kept")) == first
    assert sorted(path.name for path in (tmp_path / "kept" / "trials").iterdir()) == parts
