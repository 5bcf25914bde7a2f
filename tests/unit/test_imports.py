import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOMS = {
    "bonas_core": [
        ["errors", "children", "ranks"],
        ["registry", "storage", "determinism"],
        ["spaces", "settings"],
        ["trials", "evaluators", "networks"],
        ["methods"],
        ["problem"],
        ["search", "image_training"],
        ["report", "testing"],
    ],
    "data": [["prepared", "cifar"], ["digits", "cifar10", "cifar100", "imagenet", "nasbench101", "nasbench201"]],
    "tasks": [["home"], ["mlflow_store", "dispatch"], ["round", "train_cell"]],
    "flows": [
        ["running"],
        ["benchmarks", "rank", "search", "train", "train_trial"],
        ["open_domain", "upkeep"],
        ["command"],
    ],
}
"""The rooms of every package, from the ground up: a room imports those on floors below, and none of its own floor."""
PACKAGES = {"bonas_core": (), "data": ("bonas_core",), "tasks": ("bonas_core", "data")}
PACKAGES["flows"] = ("bonas_core", "data", "tasks")
FILES = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    """The module of a file."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Modules that a file imports, inside functions too; those for type checkers alone are left out."""
    tree = ast.parse(path.read_text())
    unseen: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            unseen |= {inner for statement in node.body for inner in ast.walk(statement)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in whole}
    return found


def floor_of(module: str) -> int | None:
    """The floor of a module's room; None for what is no room's, such as a package itself."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return next((floor for floor, rooms in enumerate(ROOMS[package]) if room in rooms), None)


def test_there_are_files_to_check():
    assert len(FILES) > 30
    assert "numpy" in imported(REPOSITORY / "bonas_core" / "methods" / "base.py")


def test_every_module_is_in_a_room():
    assert [module for module in MODULES if "." in module and floor_of(module) is None] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_point_one_way(path: Path):
    package = path.relative_to(REPOSITORY).parts[0]
    others = {module.partition(".")[0] for module in imported(path)} - {package}
    assert others & {"tests", *PACKAGES} <= set(PACKAGES[package])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_room_imports_those_below_it_alone(path: Path):
    module = name_of(path)
    floor, room = floor_of(module), module.split(".")[:2]
    if floor is None:
        return  # a package re-exports what its rooms hold
    for other in imported(path) & MODULES.keys():
        if other.split(".")[:2] != room and other.partition(".")[0] == room[0] and "." in other:
            below = floor_of(other)
            assert below is not None, other
            assert below < floor, f"{module} imports {other}"


def test_no_modules_import_each_other():
    arrows = {module: imported(path) & MODULES.keys() - {module} for module, path in MODULES.items()}
    while arrows:  # what imports nothing that is left is in no circle
        free = [module for module, below in arrows.items() if not below & arrows.keys()]
        assert free, f"circles among {sorted(arrows)}"
        for module in free:
            del arrows[module]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_only_tasks_and_flows_know_of_orchestration_and_tracking(path: Path):
    if path.relative_to(REPOSITORY).parts[0] in ("bonas_core", "data"):
        assert not {module.partition(".")[0] for module in imported(path)} & {"prefect", "mlflow"}


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement in a fresh process."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return set(done.stdout.split())


def test_building_settings_loads_neither_torch_nor_orchestration():
    loaded = loaded_by("import bonas_core.problem, bonas_core.search, bonas_core.methods.bonas.strategy")
    assert "numpy" in loaded
    assert not loaded & {"torch", "torch_geometric", "prefect", "mlflow", "flows", "tasks"}


def test_a_random_search_needs_no_torch():
    statement = (
        "from bonas_core.testing import toy_problem; from bonas_core.search import run\n"
        "assert len(run(toy_problem(trials=3, method={'name': 'random'})).rows) == 3"
    )
    assert "torch" not in loaded_by(statement)


def test_the_public_interface_is_all_there_and_light():
    statement = "from bonas_core import *\nassert Search.__module__ == 'bonas_core.search.ask_tell'"
    assert not loaded_by(statement) & {"torch", "torch_geometric", "prefect", "mlflow", "matplotlib"}
    names = "import bonas_core\nassert all(getattr(bonas_core, name) is not None for name in bonas_core.__all__)"
    assert "numpy" in loaded_by(names)


def test_neither_a_search_nor_its_report_waits_for_all_of_scipys_statistics():
    loaded_by("import bonas_core.problem, bonas_core.report.analysis; assert 'scipy.stats' not in sys.modules")
