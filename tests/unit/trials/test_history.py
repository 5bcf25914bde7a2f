from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bonas_core.errors import StoreError
from bonas_core.trials import Trial, TrialState
from bonas_core.trials import history as module
from bonas_core.trials.history import SCHEMA, TrialHistory


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


FULL = Trial(
    trial=0,
    round=0,
    key="k",
    architecture="|none~0|",
    state=TrialState.DONE,
    objective=0.912345678901234,
    metrics={"test": 0.9, "top-5": 1.0},
    sampler="evolution",
    acquisition=-3.5,
    predicted_mean=0.9,
    predicted_std=0.01,
    incumbent=0.91,
    predictor_version="abc",
    seed=2**31 - 1,
    epochs=12,
    params=123_456_789_012,
    cost_s=1.5,
    device="cuda:0",
    attempt=2,
    error=None,
    surrogate_s=0.25,
    proposed_at=datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
    started_at=datetime(2024, 2, 29, 12, 0, 1, tzinfo=UTC),
    finished_at=datetime(2024, 2, 29, 12, 0, 2, 1, tzinfo=UTC),
    images_per_second=1234.5,
)


def proposed(trial: int, round_number: int = 0) -> Trial:
    return Trial(trial, round_number, f"key {trial}", f"cell {trial}")


def done(trial: int, round_number: int = 0) -> Trial:
    return proposed(trial, round_number).with_changes(
        state=TrialState.DONE, objective=trial / 10, metrics={"test": 1.0}
    )


def filled(folder: Path) -> TrialHistory:
    """Six trials in three rounds, of which the last is not finished."""
    history = TrialHistory(folder)
    for number in range(3):
        history.propose([proposed(2 * number, number), proposed(2 * number + 1, number)])
        for trial in (2 * number, 2 * number + 1):
            if trial < 5:
                history.finish(done(trial, number))
    return history


def test_a_history_without_parts_is_empty(tmp_path: Path):
    history = TrialHistory(tmp_path / "none")
    assert history.trials() == []
    assert len(history.to_pandas()) == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "trial", [FULL, Trial(0, 0, "key", "cell"), replace(FULL, error="OSError: \u2026", objective=None)]
)
def test_what_is_written_is_read_back(trial: Trial, tmp_path: Path):
    TrialHistory(tmp_path).finish(trial)
    assert TrialHistory(tmp_path).trials() == [trial]


optional = st.none() | st.floats(allow_nan=False)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    objective=optional,
    incumbent=optional,
    metrics=st.dictionaries(st.text(max_size=9), st.floats(allow_nan=False), max_size=4),
    error=st.none() | st.text(max_size=20),
    seed=st.integers(0, 2**62),
    state=st.sampled_from([TrialState.DONE, TrialState.FAILED, TrialState.DIVERGED, TrialState.PROPOSED]),
    finished_at=st.none() | st.datetimes(datetime(1970, 1, 2), timezones=st.just(UTC)),
)
def test_any_trial_is_read_back_as_it_was(tmp_path: Path, **columns):
    trial = replace(FULL, **columns)
    TrialHistory(tmp_path).finish(trial)
    assert TrialHistory(tmp_path).trials() == [trial]


def test_columns_are_the_fields_of_a_trial():
    assert [field.name for field in SCHEMA] == list(Trial.__dataclass_fields__)


def test_a_data_frame_has_a_row_per_trial_and_metrics_as_mappings(tmp_path: Path):
    frame = filled(tmp_path).to_pandas()
    assert frame["trial"].tolist() == list(range(6))
    assert frame["metrics"].tolist() == [{"test": 1.0}] * 5 + [{}]
    assert frame["state"].tolist() == ["DONE"] * 5 + ["PROPOSED"]
    assert list(frame) == SCHEMA.names


def test_trials_come_in_the_order_of_their_numbers(tmp_path: Path):
    history = TrialHistory(tmp_path)
    for trial in (11, 2, 7):
        history.finish(done(trial))
    assert [trial.trial for trial in history.trials()] == [2, 7, 11]
    history.compact()
    history.finish(done(4))  # stands in a later part than 7 and 11
    assert [trial.trial for trial in history.trials()] == [2, 4, 7, 11]


def test_writing_again_changes_nothing(tmp_path: Path):
    history = filled(tmp_path)
    before, parts = history.trials(), sorted(path.name for path in tmp_path.iterdir())
    history.propose([proposed(2, 1), proposed(3, 1)])
    history.finish(done(3, 1))
    assert history.trials() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == parts


def test_a_result_wins_over_its_proposal_in_whatever_order_they_were_written(tmp_path: Path):
    history = TrialHistory(tmp_path)
    history.finish(done(0))
    history.propose([proposed(0), proposed(1)])
    assert history.trials() == [done(0), proposed(1)]


def test_a_later_proposal_does_not_reopen_a_compacted_result(tmp_path: Path):
    history = filled(tmp_path)
    before = history.trials()
    history.compact()
    history.propose([proposed(0), proposed(1)])
    assert history.trials() == before


def test_compaction_leaves_one_part_with_the_same_trials(tmp_path: Path):
    history = filled(tmp_path)
    before = history.trials()
    history.compact()
    assert len(list(tmp_path.iterdir())) == 1
    assert history.trials() == before


def test_a_compacted_history_goes_on_and_is_compacted_again(tmp_path: Path):
    history = filled(tmp_path)
    history.compact()
    history.finish(done(5, 2))
    history.propose([proposed(6, 3)])
    before = history.trials()
    assert [trial.trial for trial in before if trial.state is TrialState.PROPOSED] == [6]
    history.compact()
    assert len(list(tmp_path.iterdir())) == 1
    assert history.trials() == before


@pytest.mark.parametrize("deleted", [0, 1, 3])
def test_a_kill_between_writing_and_deleting_loses_nothing(deleted: int, tmp_path: Path, monkeypatch):
    history = filled(tmp_path)
    before = history.trials()
    left, unlink = [deleted], Path.unlink

    def dying(self: Path, missing_ok: bool = False) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            history.compact()
    assert len(list(tmp_path.iterdir())) == 9 - deleted
    assert history.trials() == before
    history.compact()
    assert len(list(tmp_path.iterdir())) == 1
    assert history.trials() == before


def test_compacting_a_single_part_or_none_does_nothing(tmp_path: Path):
    history = TrialHistory(tmp_path)
    history.compact()
    assert list(tmp_path.iterdir()) == []
    history.propose([proposed(0)])
    history.compact()
    assert [path.name for path in tmp_path.iterdir()] == ["round-000000-000000.parquet"]


def test_many_parts_are_compacted_and_few_are_not(tmp_path: Path, monkeypatch):
    history = filled(tmp_path)
    monkeypatch.setattr(module, "_COMPACT_AT", 8)
    history.compact_if_large()
    assert len(list(tmp_path.iterdir())) == 8
    monkeypatch.setattr(module, "_COMPACT_AT", 7)
    history.compact_if_large()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_part_is_refused_by_name(keep: float, tmp_path: Path):
    history = filled(tmp_path)
    part = tmp_path / "trial-000003.parquet"
    data = part.read_bytes()
    part.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(StoreError) as caught:
        history.trials()
    assert f"history part `{part}` cannot be read (" in str(caught.value)
    assert "it sets the part aside and does its trials again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_remedy_for_a_damaged_part_works(tmp_path: Path):
    history = filled(tmp_path)
    (tmp_path / "trial-000003.parquet").unlink()
    assert [t.trial for t in history.trials() if t.state is TrialState.PROPOSED] == [3, 5]


@pytest.mark.parametrize("version", ["2", "0"])
def test_a_part_of_another_schema_version_is_refused(version: str, tmp_path: Path):
    history = filled(tmp_path)
    part = tmp_path / "trial-000003.parquet"
    table = pq.ParquetFile(part).read()
    pq.write_table(table.replace_schema_metadata({"bonas.history.schema_version": version}), part)
    with pytest.raises(StoreError, match=f"has schema version {version}, this release reads 1; upgrade"):
        history.trials()


def test_a_foreign_parquet_file_is_refused_by_name(tmp_path: Path):
    history = filled(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(StoreError, match=r"other\.parquet` has schema version none"):
        history.trials()


def test_a_part_of_before_a_column_was_added_is_read_without_it(tmp_path: Path):
    history = TrialHistory(tmp_path)
    history.finish(FULL)
    (part,) = history.parts()
    pq.write_table(pq.read_table(part).drop_columns(["images_per_second"]), part)
    history.finish(done(1))
    assert history.trials() == [FULL.with_changes(images_per_second=None), done(1)]


def test_a_part_that_lacks_a_column_is_refused_by_name(tmp_path: Path):
    history = filled(tmp_path)
    part = tmp_path / "trial-000003.parquet"
    pq.write_table(pq.ParquetFile(part).read().drop_columns(["objective"]), part)
    with pytest.raises(StoreError, match=r"trial-000003\.parquet` cannot be read"):
        history.trials()


def test_files_that_are_no_parts_are_ignored(tmp_path: Path):
    history = filled(tmp_path)
    before = history.trials()
    (tmp_path / ".trial-000009.parquet.abc.tmp").write_bytes(b"half")
    (tmp_path / ".trial-000009.parquet").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert history.trials() == before


def test_a_part_that_is_compacted_away_while_it_is_read_is_not_missed(tmp_path: Path, monkeypatch):
    history = filled(tmp_path)
    before = history.trials()
    read, calls = module.read_part, []

    def slow(path: Path) -> pa.Table:
        calls.append(path)
        if len(calls) == 2:
            monkeypatch.setattr(module, "read_part", read)
            TrialHistory(tmp_path).compact()  # as the writer does in another process
        return read(path)

    monkeypatch.setattr(module, "read_part", slow)
    assert history.trials() == before


def test_a_part_that_cannot_be_opened_is_refused_by_name(tmp_path: Path):
    history = filled(tmp_path)
    (tmp_path / "trial-000099.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"trial-000099\.parquet` cannot be opened; remove it"):
        history.trials()


def test_parts_stay_few_and_rows_are_rewritten_seldom(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "_COMPACT_AT", 8)
    written, whole = [], module.write_whole

    def counting(path: Path, data: bytes) -> None:
        if path.name.startswith("compacted"):
            written.append(pq.ParquetFile(pa.BufferReader(data)).metadata.num_rows)
        whole(path, data)

    monkeypatch.setattr(module, "write_whole", counting)
    history, most = TrialHistory(tmp_path), 0
    for trial in range(300):
        history.propose([proposed(trial, trial)])
        history.finish(done(trial, trial))
        history.compact_if_large()
        most = max(most, len(list(tmp_path.iterdir())))
    assert most <= 9 + 7  # small parts, and merged ones of 5 * 2^k trials
    assert sum(written) < 300 * 9
    assert [trial.trial for trial in history.trials()] == list(range(300))
    assert all(trial.state is TrialState.DONE for trial in history.trials())


def test_parts_are_not_read_again_while_a_search_records(tmp_path: Path, monkeypatch):
    history = filled(tmp_path)
    history.compact_if_large()
    reads, listings = [], []
    monkeypatch.setattr(module, "read_part", reads.append)
    monkeypatch.setattr(TrialHistory, "parts", listings.append)
    history.propose([proposed(6, 3)])
    history.finish(done(6, 3))
    history.compact_if_large()
    assert (reads, listings) == ([], [])


def test_of_different_results_of_a_trial_the_first_by_name_counts(tmp_path: Path):
    history = TrialHistory(tmp_path)
    history.finish(done(0))
    history.finish(done(1))
    history.compact()
    history.finish(done(1).with_changes(objective=0.9))
    assert [trial.objective for trial in history.trials()] == [0.0, 0.1]
    history.compact()
    assert [trial.objective for trial in history.trials()] == [0.0, 0.1]
    assert len(list(tmp_path.iterdir())) == 1
