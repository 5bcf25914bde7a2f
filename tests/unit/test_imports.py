import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MAY_IMPORT = {
    "bonas_core": {"bonas_core"},
    "data": {"data", "bonas_core"},
    "tasks": {"tasks", "bonas_core", "data"},
    "flows": {"flows", "tasks", "bonas_core", "data"},
}
FILES = [path for package in MAY_IMPORT for path in sorted((REPOSITORY / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            found.add(str(node.module).partition(".")[0])
    return found


def test_there_are_files_to_check():
    assert len(FILES) > 30
    assert "numpy" in imported(REPOSITORY / "bonas_core" / "methods" / "base.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_point_one_way(path: Path):
    package = path.relative_to(REPOSITORY).parts[0]
    assert imported(path) & {"tests", *MAY_IMPORT} <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_only_tasks_and_flows_know_of_orchestration_and_tracking(path: Path):
    if path.relative_to(REPOSITORY).parts[0] in ("bonas_core", "data"):
        assert not imported(path) & {"prefect", "mlflow"}


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement in a fresh process."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return set(done.stdout.split())


def test_building_settings_loads_neither_torch_nor_orchestration():
    loaded = loaded_by("import bonas_core.build")
    assert "numpy" in loaded
    assert not loaded & {"torch", "torch_geometric", "prefect", "mlflow", "flows", "tasks"}


def test_a_random_search_needs_no_torch():
    statement = (
        "from bonas_core.testing import toy_problem; from bonas_core.search import run\n"
        "assert len(run(toy_problem(trials=3, method={'name': 'random'})).rows) == 3"
    )
    assert "torch" not in loaded_by(statement)


def test_neither_a_search_nor_its_report_waits_for_all_of_scipys_statistics():
    loaded_by("import bonas_core.build, bonas_core.report.analysis; assert 'scipy.stats' not in sys.modules")
