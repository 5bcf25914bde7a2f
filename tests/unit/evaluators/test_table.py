from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonas_core.errors import TableError
from bonas_core.evaluators.base import ClosedEvaluator, EvaluationContext
from bonas_core.evaluators.table import OBJECTIVE_METADATA, TableEvaluator, read_graphs
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.pool import PoolSpace

SPACE = NASBench201()
CONTEXT = EvaluationContext(seed=0)


def frame(rows: int = 5, **columns: object) -> pd.DataFrame:
    texts = SPACE.format(SPACE.enumerate()[100 : 100 + rows])
    return pd.DataFrame({"architecture": texts, "val": np.linspace(60.0, 90.0, rows), **columns})


def written(table: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return str(path)


@pytest.fixture(params=["table.csv", "table.parquet", "table.PQ"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def evaluate(evaluator: TableEvaluator, row: int):
    return evaluator.evaluate(SPACE.architecture(SPACE.enumerate()[100 + row]), CONTEXT)


def test_architectures_are_looked_up(path: Path):
    evaluator = TableEvaluator(SPACE, written(frame(test=[50.0, 51, 52, 53, 54]), path), "val", "test")
    outcome = evaluate(evaluator, 4)
    assert (outcome.objective, outcome.metrics) == (90.0, {"index": 4.0, "test": 54.0})
    assert evaluator.objectives() == np.linspace(60, 90, 5).tolist()
    assert isinstance(evaluator, ClosedEvaluator)
    assert evaluator.objective == "table: val"


def test_a_search_without_a_test_column_has_no_test_metric(path: Path):
    assert set(evaluate(TableEvaluator(SPACE, written(frame(), path), "val"), 0).metrics) == {"index"}


@pytest.mark.parametrize("column", ["index", "arch_index"])
def test_an_index_column_gives_the_official_index(column: str, path: Path):
    evaluator = TableEvaluator(SPACE, written(frame(**{column: [7, 3, 15_624, 0, 1]}), path), "val")
    assert evaluate(evaluator, 2).metrics["index"] == 15_624


@pytest.mark.parametrize("values", [["a", "b", "c", "d", "e"], [0, 1, None, 3, 4], [0, 1, 2, 3, 4.5]])
def test_an_index_that_is_not_made_of_whole_numbers_is_refused(values: list, path: Path):
    with pytest.raises(TableError, match="column `arch_index` does not hold whole numbers; correct or drop it"):
        TableEvaluator(SPACE, written(frame(arch_index=values), path), "val")


def test_official_names_of_columns_are_known(path: Path):
    table = frame().rename(columns={"architecture": "arch_str"})
    assert evaluate(TableEvaluator(SPACE, written(table, path), "val"), 1).objective == 67.5


def test_the_order_of_columns_does_not_matter(path: Path):
    table = frame(arch_index=range(5))[["val", "arch_index", "architecture"]]
    assert evaluate(TableEvaluator(SPACE, written(table, path), "val"), 1).objective == 67.5


def test_a_table_that_lacks_architectures_closes_the_space(path: Path):
    evaluator = TableEvaluator(SPACE, written(frame(), path), "val")
    assert isinstance(evaluator.space, PoolSpace)
    np.testing.assert_array_equal(evaluator.space.enumerate(), SPACE.enumerate()[100:105])
    with pytest.raises(TableError, match="` is not in the table; search the part of the space that is"):
        evaluate(evaluator, 5)


def test_a_whole_table_leaves_the_space_open(tmp_path: Path):
    table = pd.DataFrame({"architecture": SPACE.format(SPACE.enumerate()), "val": 50.0})
    assert TableEvaluator(SPACE, written(table, tmp_path / "t.parquet"), "val").space is SPACE


def test_fractions_are_fractions(path: Path):
    table = frame().assign(val=[0.1, 0.2, 1.0, 0.0, 0.5])
    evaluator = TableEvaluator(SPACE, written(table, path), "val", unit="fraction")
    assert (evaluate(evaluator, 2).objective, evaluator.unit) == (1.0, "fraction")


def test_the_ends_of_the_range_of_percent_are_in_it(path: Path):
    TableEvaluator(SPACE, written(frame().assign(val=[0.0, 100.0, 50, 50, 50]), path), "val")


def test_the_direction_is_handed_on(path: Path):
    assert TableEvaluator(SPACE, written(frame(), path), "val", direction="minimise").direction == "minimise"


def test_the_fingerprint_follows_file_and_columns(tmp_path: Path):
    a = written(frame(test=51.0), tmp_path / "a.csv")
    same = written(frame(test=51.0), tmp_path / "b.csv")
    other = written(frame(test=52.0), tmp_path / "c.csv")
    prints = [
        TableEvaluator(SPACE, table, "val", test).fingerprint
        for table, test in [(a, None), (a, "test"), (other, "test"), (same, "test")]
    ]
    assert len(set(prints)) == 3
    assert prints[1] == prints[3]


TEXT = SPACE.format(SPACE.enumerate()[102:103])[0]
FAULTS = {
    "no column": (frame().rename(columns={"val": "acc"}), "has no column `val`; it has architecture, acc"),
    "no architectures": (
        frame().rename(columns={"architecture": "cell"}),
        "has no column `architecture` or `arch_str`; it has cell, val",
    ),
    "no rows": (frame().iloc[:0], "has no rows; give one with a row per architecture"),
    "not of the space": (
        frame().replace({TEXT: TEXT.replace("none", "max_pool", 1)}),
        "`max_pool` is not an operation; use one of none, ",
    ),
    "empty architecture": (frame().replace({TEXT: None}), ", row 2: the architecture is empty; every row needs one"),
    "repeated": (
        pd.concat([frame(), frame().iloc[[3]]]),
        "stands in rows 3 and 5; keep one row per architecture",
    ),
    "text": (frame().assign(val="high"), ": column `val` does not hold numbers; name another column"),
    "nan": (
        frame().assign(val=[50, 50, 50, np.nan, 50]),
        ", row 3: `val` is nan; every row needs a finite number",
    ),
    "infinite": (
        frame().assign(val=[50, np.inf, 50, 50, 50]),
        ", row 1: `val` is inf; every row needs a finite number",
    ),
    "negative": (frame().assign(val=[50, 50, -1, 50, 50]), ", row 2: `val` is -1.0, not a percent; name a column of"),
    "above 100": (
        frame().assign(val=[50, 50, 101, 50, 50]),
        ", row 2: `val` is 101.0, not a percent; name a column of",
    ),
    "fractions as percent": (
        frame().assign(val=0.9),
        ": no `val` exceeds 1, so it holds fractions; set evaluator.unit=fraction",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_table_is_refused_in_one_line(fault: str, path: Path):
    table, message = FAULTS[fault]
    with pytest.raises(TableError) as caught:
        TableEvaluator(SPACE, written(table, path), "val")
    assert str(caught.value).startswith(f"table `{path}`")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_percent_as_fractions_is_refused(path: Path):
    with pytest.raises(TableError, match=r"row 0: `val` is 60\.0, not a fraction; set evaluator\.unit=percent"):
        TableEvaluator(SPACE, written(frame(), path), "val", unit="fraction")


def test_the_test_column_is_checked_too(path: Path):
    with pytest.raises(TableError, match="row 1: `test` is nan"):
        TableEvaluator(SPACE, written(frame(test=[50, np.nan, 50, 50, 50]), path), "val", "test")
    with pytest.raises(TableError, match="has no column `tets`"):
        TableEvaluator(SPACE, str(path), "val", "tets")


@pytest.mark.parametrize("table", [None, ""])
def test_a_table_search_needs_a_table(table: str | None):
    with pytest.raises(TableError, match=r"`evaluator\.table` is empty, .* give it with --set evaluator\.table=PATH"):
        TableEvaluator(SPACE, table, "val")


def test_a_file_that_is_not_there_is_named(path: Path):
    with pytest.raises(TableError, match="does not exist; give the file with --set"):
        TableEvaluator(SPACE, str(path), "val")


@pytest.mark.parametrize("keep", [0, 20, -20])
def test_a_truncated_parquet_file_is_refused(keep: int, tmp_path: Path):
    path = Path(written(frame(), tmp_path / "t.parquet"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TableError, match=r"cannot be read \(.*\); it must be a whole CSV or Parquet file"):
        TableEvaluator(SPACE, str(path), "val")


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00\x80"])
def test_a_file_that_is_no_csv_is_refused(data: bytes, tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(TableError, match="table `"):
        TableEvaluator(SPACE, str(path), "val")


@pytest.mark.parametrize(
    ("column", "optimum", "index"), [("cifar10_val_200", 91.6067, 6111), ("cifar100_val_200", 73.4933, 9930)]
)
def test_optima_of_the_real_table_are_the_published_ones(
    column: str, optimum: float, index: int, nasbench201_table: Path
):
    evaluator = TableEvaluator(SPACE, str(nasbench201_table), column)
    values = evaluator.objectives()
    assert evaluator.space is SPACE
    assert len(values) == 15_625
    assert max(values) == pytest.approx(optimum, abs=5e-5)
    table = pd.read_parquet(nasbench201_table).set_index("arch_index")
    best = SPACE.architecture(SPACE.parse([table.loc[index, "arch_str"]])[0])
    outcome = evaluator.evaluate(best, CONTEXT)
    assert (outcome.objective, outcome.metrics["index"]) == (max(values), index)
    assert values.count(max(values)) == 1


# Tables of graphs

GRAPHS = NASBench101()


def graph_frame(rows: int = 8, **columns: object) -> pd.DataFrame:
    """Cells of all sizes, as graphs."""
    cells = GRAPHS.enumerate()[np.linspace(0, GRAPHS.size - 1, rows).astype(int)]
    adjacency, ops = GRAPHS.to_bits(cells)
    values = np.linspace(0.5, 0.9, rows)
    return pd.DataFrame({"adjacency": adjacency, "ops": [list(row) for row in ops], "val": values, **columns})


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """With labels as one text, as in CSV files."""
    return table.assign(ops=[",".join(row) for row in table["ops"]])


@pytest.mark.parametrize("kind", ["lists.parquet", "texts.parquet", "texts.csv"])
def test_graphs_are_looked_up(kind: str, tmp_path: Path):
    table = graph_frame() if kind.startswith("lists") else flat(graph_frame())
    evaluator = TableEvaluator(GRAPHS, written(table, tmp_path / kind), "val", unit="fraction")
    cells = GRAPHS.from_bits(table["adjacency"].tolist(), graph_frame()["ops"].tolist())
    np.testing.assert_array_equal(evaluator.space.enumerate(), cells)
    for row, cell in enumerate(cells):
        outcome = evaluator.evaluate(GRAPHS.architecture(cell), CONTEXT)
        assert (outcome.objective, outcome.metrics) == (table["val"][row], {"index": row})
    with pytest.raises(TableError, match="is not in the table"):
        evaluator.evaluate(GRAPHS.architecture(GRAPHS.enumerate()[1]), CONTEXT)


@settings(max_examples=20)
@given(st.lists(st.integers(0, GRAPHS.size - 1), min_size=1, max_size=30, unique=True))
def test_graphs_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, rows: list[int]):
    adjacency, ops = GRAPHS.to_bits(GRAPHS.enumerate()[rows])
    path = tmp_path_factory.getbasetemp() / "graphs.parquet"
    written(pd.DataFrame({"adjacency": adjacency, "ops": [list(row) for row in ops]}), path)
    assert read_graphs(path) == (adjacency, ops)
    np.testing.assert_array_equal(GRAPHS.from_bits(*read_graphs(path)), GRAPHS.enumerate()[rows])


def test_texts_go_before_graphs(tmp_path: Path):
    table = graph_frame()
    cells = GRAPHS.from_bits(table["adjacency"].tolist(), table["ops"].tolist())
    both = table.assign(architecture=GRAPHS.format(cells[::-1]))
    evaluator = TableEvaluator(GRAPHS, written(both, tmp_path / "t.parquet"), "val", unit="fraction")
    np.testing.assert_array_equal(evaluator.space.enumerate(), cells[::-1])


GRAPH_FAULTS = {
    "unknown operation": ({"ops": [["input", "output"], ["input", "swish", "output"]]}, "`swish` is not an operation"),
    "no label": ({"ops": [["input", "output"], ["input", None, "output"]]}, "`` is not an operation"),
    "wrong length": ({"adjacency": ["1", "11"]}, "row 1: adjacency `11` is not 3 times 0 or 1 for its 3 vertices"),
    "no path": ({"adjacency": ["1", "100"]}, "row 1: no path leads from its input to its output"),
    "empty adjacency": ({"adjacency": ["1", None]}, "row 1: `adjacency` is empty; every row needs one"),
    "empty ops": ({"ops": [["input", "output"], None]}, "row 1: `ops` is empty; every row needs one"),
    "no vertices": ({"ops": [["input", "output"], []]}, "row 1: it has 0 vertices"),
    "repeated": ({"adjacency": ["1", "110"]}, "stands in rows 0 and 1; keep one row per architecture"),
    "numbers": ({"adjacency": [1, 101]}, "column `adjacency` does not hold texts of 0 and 1; write it so"),
    "codes": ({"ops": [[0, 1], [0, 2, 1]]}, "column `ops` holds neither texts nor lists of them; write it so"),
}


@pytest.mark.parametrize("fault", GRAPH_FAULTS)
def test_a_faulty_table_of_graphs_is_refused_in_one_line(fault: str, tmp_path: Path):
    columns, message = GRAPH_FAULTS[fault]
    good = {"adjacency": ["1", "101"], "ops": [["input", "output"], ["input", "maxpool3x3", "output"]], "val": 0.5}
    path = written(pd.DataFrame({**good, **columns}), tmp_path / "t.parquet")
    with pytest.raises(TableError) as caught:
        TableEvaluator(GRAPHS, path, "val", unit="fraction")
    assert str(caught.value).startswith(f"table `{path}`")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_without_graphs_wants_texts(tmp_path: Path):
    with pytest.raises(TableError, match="has no column `architecture` or `arch_str`; it has adjacency, ops, val"):
        TableEvaluator(SPACE, written(graph_frame(), tmp_path / "t.parquet"), "val", unit="fraction")


def test_a_table_of_all_graphs_leaves_the_space_open(tmp_path: Path):
    adjacency, ops = GRAPHS.to_bits(GRAPHS.enumerate())
    table = pa.table({"adjacency": adjacency, "ops": ops, "val": np.linspace(0, 1, GRAPHS.size)})
    pq.write_table(table, tmp_path / "t.parquet")
    evaluator = TableEvaluator(GRAPHS, str(tmp_path / "t.parquet"), "val", unit="fraction")
    assert evaluator.space is GRAPHS
    row = 400_000
    outcome = evaluator.evaluate(GRAPHS.architecture(GRAPHS.enumerate()[row]), CONTEXT)
    assert outcome.metrics["index"] == row


# Runs, and objectives in full


def test_a_random_run_is_drawn_by_the_seed_of_the_trial(path: Path):
    table = frame(**{f"val_run{run}": np.linspace(60, 90, 5) + run for run in (1, 2, 10)})
    evaluator = TableEvaluator(SPACE, written(table, path), "val_run*")
    architecture = SPACE.architecture(SPACE.enumerate()[100])
    outcomes = [evaluator.evaluate(architecture, EvaluationContext(seed)) for seed in range(60)]
    assert {outcome.objective for outcome in outcomes} == {61.0, 62.0, 70.0}
    assert outcomes == [evaluator.evaluate(architecture, EvaluationContext(seed)) for seed in range(60)]
    assert [outcome.metrics["mean"] for outcome in outcomes] == pytest.approx([193 / 3] * 60)
    assert evaluator.objectives()[0] == pytest.approx(193 / 3)
    assert evaluator.objective == "table: val_run*"


def test_runs_must_be_there_and_be_numbers(path: Path):
    table = frame(val_run1=50.0, val_run2=np.nan, val_runs=50.0)
    with pytest.raises(TableError, match="row 0: `val_run2` is nan"):
        TableEvaluator(SPACE, written(table, path), "val_run*")
    with pytest.raises(TableError, match=r"has 0 columns `test_run\*`, with a number for `\*`; name the one column"):
        TableEvaluator(SPACE, str(path), "test_run*")


def described(objective: bytes, path: Path) -> str:
    table = pa.Table.from_pandas(frame(test=50.0), preserve_index=False)
    pq.write_table(table.replace_schema_metadata({OBJECTIVE_METADATA: objective}), path)
    return str(path)


def test_metadata_name_the_objective_in_full(tmp_path: Path):
    text = b'{"name": "mine", "description": "made up", "columns": {"test": "the other one"}}'
    path = described(text, tmp_path / "t.parquet")
    assert TableEvaluator(SPACE, path, "val").objective == "mine: val, made up"
    assert TableEvaluator(SPACE, path, "test").objective == "mine: test, the other one"
    path = described(b'{"name": "mine"}', tmp_path / "t.parquet")
    assert TableEvaluator(SPACE, path, "val").objective == "mine: val"


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b"\xff", b'{"name": "a", "columns": []}'])
def test_metadata_that_name_nothing_are_refused(text: bytes, tmp_path: Path):
    with pytest.raises(TableError, match=r"metadata `bonas\.objective` is not a JSON mapping with a `name`; write"):
        TableEvaluator(SPACE, described(text, tmp_path / "t.parquet"), "val")


def test_the_real_cells_of_nasbench101_are_a_closed_part(nasbench101_table: Path):
    evaluator = TableEvaluator(GRAPHS, str(nasbench101_table), "val_acc_108", unit="fraction")
    assert isinstance(evaluator.space, PoolSpace)
    assert evaluator.space.size == 20_001
    values = evaluator.objectives()
    assert max(values) == pytest.approx(0.949119, abs=1e-6)
    best = evaluator.space.enumerate()[int(np.argmax(values))]
    assert GRAPHS.architecture(best).key == "096f593e0f12d65f6220bf8565b764a9"
    assert evaluator.evaluate(GRAPHS.architecture(best), CONTEXT).objective == max(values)
