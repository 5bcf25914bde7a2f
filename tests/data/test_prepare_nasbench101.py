"""Preparing tables of NAS-Bench-101, on small files in the official format and in Parquet."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_tfrecord import record, written

from bonas_core.errors import InputError, SettingsError, TableError
from bonas_core.evaluators.base import EvaluationContext
from bonas_core.evaluators.table import TableEvaluator
from bonas_core.problem import build
from bonas_core.spaces.nasbench101 import NASBench101
from data.nasbench101 import features, prepare_space, prepare_surrogate
from data.nasbench101.prepare import check, prepare
from data.nasbench101.tfrecord import Run
from flows.command import datasets
from flows.running.presets import load_settings, prepared_table, presets

SPACE = NASBench101()
CELLS = SPACE.enumerate()[[0, 3, 50, 1_000, 200_000, 423_623]]
HASHES = SPACE.official_hash(CELLS)


def official(row: int, epochs: int, run: int) -> Run:
    """A run of one of the cells, with figures that tell all apart."""
    graph = SPACE.architecture(CELLS[row])
    n = graph.vertices
    matrix = "".join("1" if (i, j) in graph.edges else "0" for i in range(n) for j in range(n))
    validation = 0.5 + row / 100 + run / 1000 + epochs / 1e4
    return Run(
        HASHES[row], epochs, matrix, ",".join(graph.operations), validation, validation - 0.25, 10.0 * run, 100 + row
    )


ORDER = [(row, epochs, run) for run in (1, 2, 3) for epochs in (36, 108) for row in range(len(CELLS))]


@pytest.fixture
def tfrecord(tmp_path: Path) -> Path:
    return written(tmp_path / "nasbench.tfrecord", [record(official(*which)) for which in ORDER])


def parquet(path: Path, **columns: object) -> Path:
    adjacency, ops = SPACE.to_bits(CELLS)
    given = {"hash": HASHES, "adjacency": adjacency, "ops": [list(row) for row in ops], "val_acc_108": [0.9] * 6}
    table = {name: column for name, column in {**given, **columns}.items() if column is not None}
    pq.write_table(pa.table(table), path)
    return path


def test_the_official_file_gives_every_run_and_the_means(tfrecord: Path, tmp_path: Path):
    target = tmp_path / "home" / "nasbench101.parquet"
    printed = prepare(tfrecord, target)
    assert "6 cells" in printed
    assert "val_acc_108: CIFAR-10 validation accuracy after 108 epochs, mean of 3 runs" in printed
    table = pd.read_parquet(target)
    assert table["hash"].tolist() == HASHES
    np.testing.assert_array_equal(SPACE.from_bits(table["adjacency"].tolist(), table["ops"].tolist()), CELLS)
    assert table["params"].tolist() == [100, 101, 102, 103, 104, 105]
    for epochs in (36, 108):
        for run in (1, 2, 3):
            expected = [official(row, epochs, run) for row in range(6)]
            assert table[f"val_acc_{epochs}_run{run}"].tolist() == [each.validation for each in expected]
            assert table[f"test_acc_{epochs}_run{run}"].tolist() == [each.test for each in expected]
        for split in ("val", "test"):
            each = table[[f"{split}_acc_{epochs}_run{run}" for run in (1, 2, 3)]]
            np.testing.assert_allclose(table[f"{split}_acc_{epochs}"], each.mean(axis=1), rtol=1e-15)
        assert (table[f"train_time_{epochs}_s"] == 20).all()
    assert "6 cells, as prepared" in check(target)


def test_the_order_of_the_official_file_does_not_matter(tfrecord: Path, tmp_path: Path):
    tables = []
    for number, seed in enumerate((1, 2)):
        order = np.random.default_rng(seed).permutation(len(ORDER))
        order = sorted(order, key=lambda place: ORDER[place][2])  # runs of a cell keep theirs
        path = written(tmp_path / f"{number}.tfrecord", [record(official(*ORDER[place])) for place in order])
        prepare(path, tmp_path / f"{number}.parquet")
        tables.append(pd.read_parquet(tmp_path / f"{number}.parquet").sort_values("hash", ignore_index=True))
    pd.testing.assert_frame_equal(*tables)


def test_the_objectives_of_an_official_table_are_named_in_full(tfrecord: Path, tmp_path: Path):
    target = tmp_path / "nasbench101.parquet"
    prepare(tfrecord, target)
    mean = TableEvaluator(SPACE, str(target), "val_acc_108", "test_acc_108", unit="fraction")
    assert mean.objective == "nasbench101: val_acc_108, CIFAR-10 validation accuracy after 108 epochs, mean of 3 runs"
    drawn = TableEvaluator(SPACE, str(target), "val_acc_36_run*", unit="fraction")
    assert drawn.objective == (
        "nasbench101: val_acc_36_run*, CIFAR-10 validation accuracy after 36 epochs, at every evaluation a random "
        "one of 3 runs"
    )
    np.testing.assert_allclose(drawn.objectives(), [official(row, 36, 2).validation for row in range(6)])
    assert mean.evaluate(SPACE.architecture(CELLS[4]), EvaluationContext(0)).metrics["test"] == pytest.approx(
        official(4, 108, 2).test
    )


def test_runs_without_repeats_have_no_columns_of_single_runs_to_draw_from(tmp_path: Path):
    path = written(tmp_path / "t.tfrecord", [record(official(row, 108, 1)) for row in range(6)])
    prepare(path, tmp_path / "t.parquet")
    assert "1 of 1" in prepare(path, tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"has 1 columns `val_acc_108_run\*`, with a number for `\*`; name the one"):
        TableEvaluator(SPACE, str(tmp_path / "t.parquet"), "val_acc_108_run*", unit="fraction")


def changed(row: int, **fields: object) -> bytes:
    return record(official(row, 108, 1)._replace(**fields))  # type: ignore[arg-type]


TFRECORD_FAULTS = {
    "unknown operation": (changed(1, operations="input,conv5x5,output"), "`conv5x5` is not an operation; use one of"),
    "no upper triangle": (changed(0, adjacency="0110"), "`0110` is not an upper-triangular matrix of its 2 vertices"),
    "matrix of another size": (changed(0, adjacency="010"), "`010` is not an upper-triangular matrix of its 2"),
    "no path": (changed(0, adjacency="0000"), "no path leads from its input to its output"),
    "another hash": (changed(1, hash="0" * 32), "the hash is `00000000000000000000000000000000`, its cell has `"),
    "twice": (changed(0, hash="1" * 32), "stands in rows 0 and 6; keep one row per architecture"),
    "two graphs": (changed(1, hash=HASHES[0]), "has two graphs; bring the official file"),
    "a run too many": (changed(2), "has 1 runs of 108 epochs and another 2; bring the whole file"),
    "no fraction": (changed(3, validation=1.5), "`val_acc_108` is 1.5, not a fraction"),
    "nan": (changed(3, validation=float("nan")), "`val_acc_108` is nan; every row needs a finite number"),
}


@pytest.mark.parametrize("fault", TFRECORD_FAULTS)
def test_an_official_file_with_a_fault_is_refused_and_nothing_is_written(fault: str, tmp_path: Path):
    spoilt, message = TFRECORD_FAULTS[fault]
    keep = [record(official(row, 108, 1)) for row in range(6)]
    if fault not in ("twice", "two graphs", "a run too many"):
        broken = {"unknown operation": 1, "another hash": 1, "no fraction": 3, "nan": 3}.get(fault, 0)
        keep.pop(broken)
    path = written(tmp_path / "t.tfrecord", [*keep, spoilt])
    with pytest.raises(TableError) as caught:
        prepare(path, tmp_path / "prepared.parquet")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "prepared.parquet").exists()


def test_a_parquet_keeps_its_columns_of_numbers(tmp_path: Path):
    source = parquet(tmp_path / "mine.parquet", train_time_s=[1.0] * 6, note=["a"] * 6, val_acc_108_run2=[0.5] * 6)
    printed = prepare(source, tmp_path / "nasbench101.parquet")
    assert "val_acc_108: CIFAR-10 validation accuracy after 108 epochs, as in mine.parquet" in printed
    assert "val_acc_108_run2: CIFAR-10 validation accuracy after 108 epochs, run 2" in printed
    table = pd.read_parquet(tmp_path / "nasbench101.parquet")
    assert sorted(table.columns) == sorted(
        ["adjacency", "ops", "hash", "val_acc_108", "train_time_s", "val_acc_108_run2"]
    )
    assert "6 cells, as prepared" in check(tmp_path / "nasbench101.parquet")


PARQUET_FAULTS = {
    "no hash": ({"hash": None}, "has no column `hash`; it has adjacency, ops, val_acc_108"),
    "no graphs": ({"ops": None}, "has no column `ops`"),
    "no accuracies": ({"val_acc_108": None}, "has no column of accuracies; name one val_acc_108 or test_acc_108"),
    "percent": ({"val_acc_108": [90.0] * 6}, "`val_acc_108` is 90.0, not a fraction"),
    "wrong hashes": ({"hash": HASHES[::-1]}, "row 0: the hash is `"),
}


@pytest.mark.parametrize("fault", PARQUET_FAULTS)
def test_a_parquet_with_a_fault_is_refused(fault: str, tmp_path: Path):
    columns, message = PARQUET_FAULTS[fault]
    source = parquet(tmp_path / "mine.parquet", **columns)
    with pytest.raises(TableError) as caught:
        prepare(source, tmp_path / "prepared.parquet")
    assert message in str(caught.value)
    assert not (tmp_path / "prepared.parquet").exists()


def test_another_kind_of_file_is_refused(tmp_path: Path):
    with pytest.raises(TableError, match=r"is neither \.tfrecord nor \.parquet; give one of them"):
        prepare(tmp_path / "cells.csv", tmp_path / "prepared.parquet")


def test_a_prepared_table_that_was_changed_is_found(tmp_path: Path):
    target = tmp_path / "nasbench101.parquet"
    with pytest.raises(TableError, match="does not exist; write it with `bonas data prepare nasbench101 --source"):
        check(target)
    prepare(parquet(tmp_path / "mine.parquet"), target)
    table = pq.ParquetFile(target).read()
    place = table.column_names.index("val_acc_108")
    pq.write_table(table.set_column(place, "val_acc_108", pa.array([0.9, 0.9, 0.9, 0.9, 0.9, 0.91])), target)
    with pytest.raises(TableError, match="has changed since it was prepared; prepare it again"):
        check(target)
    pq.write_table(table.replace_schema_metadata({}), target)
    with pytest.raises(TableError, match="was not written by `bonas data prepare`; prepare it again"):
        check(target)
    target.write_bytes(target.read_bytes()[:-9])
    with pytest.raises(TableError, match=r"cannot be read \(.*\); prepare it again"):
        check(target)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BONAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_data_sets_of_one_folder_have_tables_of_their_own(own_home: Path, tmp_path: Path):
    source = parquet(tmp_path / "mine.parquet")
    assert "as in mine.parquet" in datasets.prepare("nasbench101", source)
    assert "one single run" in datasets.prepare("nasbench101-cells", source)
    assert sorted(path.name for path in (own_home / "data").iterdir()) == [
        "nasbench101-cells.parquet",
        "nasbench101.parquet",
    ]
    assert "6 cells, as prepared" in datasets.check("nasbench101-cells")
    evaluator = TableEvaluator(SPACE, str(prepared_table("nasbench101-cells")), "val_acc_108", unit="fraction")
    assert evaluator.objective.startswith("nasbench101-cells: val_acc_108, CIFAR-10 validation accuracy")


def test_presets_find_the_table_that_they_name(own_home: Path, tmp_path: Path):
    with pytest.raises(
        SettingsError,
        match=r"table `nasbench101-cells` is not prepared; run `bonas data prepare nasbench101-cells`, or give a file",
    ):
        load_settings("nb101-cells-val")
    datasets.prepare("nasbench101-cells", parquet(tmp_path / "mine.parquet"))
    settings, _ = load_settings("nb101-cells-val")
    assert settings.evaluator.table == str(own_home / "data" / "nasbench101-cells.parquet")  # type: ignore[union-attr]
    problem = build(settings)
    assert problem.space.size == 6
    assert problem.objective.unit == "fraction"


def test_a_file_of_the_name_of_a_table_goes_before_it(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    settings, _ = load_settings("nb101-cells-val", overrides=["evaluator.table=mine"])
    assert settings.evaluator.table == str(tmp_path / "mine")  # type: ignore[union-attr]


def test_every_preset_of_the_space_names_a_data_set_and_its_objective(own_home: Path, tfrecord: Path, tmp_path: Path):
    datasets.prepare("nasbench101", tfrecord)
    datasets.prepare("nasbench101-cells", parquet(tmp_path / "mine.parquet"))
    columns = {"val_acc_108_surrogate": [0.9] * 6, "val_acc_108": None}
    parquet(own_home / "data" / "nasbench101-surrogate.parquet", **columns)
    found = [preset for preset in presets() if preset.name.startswith("nb101-")]
    assert len(found) == 5
    for preset in found:
        assert "CIFAR-10" in preset.description
        assert build(load_settings(preset.name)[0]).space.name == "nasbench101"
        assert ("SURROGATE" in preset.description) == ("surrogate" in preset.name)


def test_what_is_computed_takes_no_source(own_home: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"nasbench101-space: it is computed, .* leave out --source"):
        datasets.prepare("nasbench101-space", tmp_path / "t.parquet")


# The whole space


@pytest.fixture
def few_cells(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A space of 3000 cells, so that hashing and predicting it take seconds."""
    cells = SPACE.enumerate()[:3000]
    monkeypatch.setattr(NASBench101, "enumerate", lambda self: cells)
    return cells


def test_the_table_of_the_space_holds_all_cells_and_hashes(own_home: Path, few_cells: np.ndarray):
    printed = datasets.prepare("nasbench101-space", None)
    assert "3000 cells (1 of 2, 6 of 3, 84 of 4, 2441 of 5, 468 of 6 vertices)" in printed
    assert "as prepared; 1000 hashes computed again" in datasets.check("nasbench101-space")
    table = pq.ParquetFile(prepared_table("nasbench101-space")).read()
    np.testing.assert_array_equal(prepare_space.genotypes(table), few_cells)
    hashes = [digest.hex() for digest in table["hash"].to_pylist()]
    assert hashes[::100] == SPACE.official_hash(few_cells[::100])


def test_a_table_of_another_space_is_no_table_of_the_space(
    own_home: Path, few_cells: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    datasets.prepare("nasbench101-space", None)
    monkeypatch.setattr(NASBench101, "enumerate", lambda self: few_cells[::-1])
    with pytest.raises(TableError, match="does not hold the cells of the space in their order; prepare it again"):
        datasets.check("nasbench101-space")


# The surrogate


def test_features_count_paths_edges_degrees_and_operations():
    (row,) = features.features(SPACE.parse(["input;conv1x1;maxpool3x3;output|0-1,0-2,0-3,1-2,2-3"]))
    assert len(row) == features.COUNT == 394
    paths, rest = row[:364], row[364:]
    # 0 is the direct path; then 3 paths of one operation, and 9 of two: conv1x1, maxpool3x3 is the sixth of these
    assert dict(zip(*(found.tolist() for found in (np.flatnonzero(paths), paths[paths > 0])), strict=True)) == {
        0: 1.0,
        1 + 2: 1.0,
        1 + 3 + 3 * 1 + 2: 1.0,
    }
    pairs = rest[:16].reshape(4, 4)  # from conv3x3, conv1x1, maxpool3x3, input to these operations and the output
    assert pairs.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 1, 1]]
    into, out_of = rest[16:19].tolist(), rest[19:22].tolist()
    assert (into, out_of) == ([0, 1, 2], [0, 1, 1])
    assert rest[22:].tolist() == [3, 2, 0, 1, 1, 4, 5, 3]


def test_features_are_the_same_for_isomorphic_cells():
    same = SPACE.parse(
        ["input;conv1x1;maxpool3x3;output|0-1,0-2,1-3,2-3", "input;maxpool3x3;conv1x1;output|0-1,0-2,1-3,2-3"]
    )
    first, second = features.features(same)
    np.testing.assert_array_equal(first, second)


def test_keys_scatter_evenly():
    drawn = prepare_surrogate.uniform(SPACE.keys(SPACE.enumerate()))
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    expected = len(drawn) / 100
    assert ((counts - expected) ** 2 / expected).sum() < 99 + 5 * np.sqrt(2 * 99)


def test_noise_repeats_and_follows_the_level():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(-1, 3, 20_000)
    measured = predicted + rng.normal(0, np.where(predicted < 1, 0.5, 0.05))
    noise = prepare_surrogate.noise_of(predicted, measured)
    keys = rng.integers(2**63, size=20_000, dtype=np.uint64)
    drawn = noise.draw(predicted, keys)
    np.testing.assert_array_equal(drawn[::-1], noise.draw(predicted[::-1], keys[::-1]))
    assert drawn[predicted < 0.5].std() == pytest.approx(0.5, rel=0.1)
    assert drawn[predicted > 1.5].std() == pytest.approx(0.05, rel=0.1)
    assert abs(drawn[predicted > 1.5].mean()) < 0.005
    assert np.isfinite(noise.draw(np.array([-99.0, 99.0]), keys[:2])).all()


@pytest.fixture
def trained(tmp_path: Path, few_cells: np.ndarray) -> Path:
    """1,500 cells whose made-up accuracy rises with convolutions and depth."""
    cells = few_cells[1::2]
    rng = np.random.default_rng(0)
    value = (cells[:, 21:] == 0).sum(axis=1) + 0.5 * cells[:, :21].sum(axis=1) + rng.normal(0, 0.1, len(cells))
    adjacency, ops = SPACE.to_bits(cells)
    table = {
        "hash": SPACE.official_hash(cells),
        "adjacency": adjacency,
        "ops": [list(row) for row in ops],
        "val_acc_108": 1 / (1 + np.exp(-value / 2)),
    }
    pq.write_table(pa.table(table), tmp_path / "trained.parquet")
    return tmp_path / "trained.parquet"


def test_the_surrogate_is_prepared_and_says_what_it_is(
    own_home: Path, trained: Path, few_cells: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prepare_surrogate, "_ITERATIONS", 30)
    printed = datasets.prepare("nasbench101-surrogate", trained)
    assert "150 held-out cells, predicted and measured: Spearman 0.9" in printed
    assert "as prepared" in datasets.check("nasbench101-surrogate")
    target = prepared_table("nasbench101-surrogate")
    before = pd.read_parquet(target)
    assert list(before.columns) == ["adjacency", "ops", "val_acc_108_surrogate", "val_acc_108_surrogate_mean"]
    np.testing.assert_array_equal(SPACE.from_bits(before["adjacency"].tolist(), before["ops"].tolist()), few_cells)
    noisy, mean = before["val_acc_108_surrogate"], before["val_acc_108_surrogate_mean"]
    assert ((noisy > 0) & (noisy < 1)).all()
    assert noisy.nunique() > mean.nunique()
    assert noisy.corr(mean, method="spearman") > 0.9
    for column in ("val_acc_108_surrogate", "val_acc_108_surrogate_mean"):
        objective = TableEvaluator(SPACE, str(target), column, unit="fraction").objective
        assert objective.startswith(f"nasbench101-surrogate: {column}, surrogate for the CIFAR-10 validation accuracy")
    datasets.prepare("nasbench101-surrogate", trained)
    pd.testing.assert_frame_equal(pd.read_parquet(target), before)


def test_a_surrogate_needs_many_trained_cells(own_home: Path, tmp_path: Path):
    with pytest.raises(TableError, match="has 6 cells; a surrogate is learnt from 1000 or more"):
        datasets.prepare("nasbench101-surrogate", parquet(tmp_path / "mine.parquet"))
    with pytest.raises(TableError, match="has no column `val_acc_108`; it has hash, adjacency, ops, val_acc_36"):
        datasets.prepare(
            "nasbench101-surrogate", parquet(tmp_path / "a.parquet", val_acc_108=None, val_acc_36=[0.5] * 6)
        )
