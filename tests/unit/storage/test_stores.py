"""The same semantics in a folder and in S3, the latter against a real server."""

import json
import os
import pickle
import signal
import threading
from datetime import datetime
from pathlib import Path

import pytest
from holder import holding

from bonas_core.errors import SearchLockedError, StoreError
from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.methods.bonas.model import read_model
from bonas_core.methods.samplers.state import SamplerState, read_state
from bonas_core.search import run
from bonas_core.storage import (
    Location,
    S3Path,
    check_writable,
    is_locked,
    make_folder,
    read_json,
    read_whole,
    remove_file,
    remove_folder,
    set_aside,
    single_writer,
    store_folder,
    write_whole,
)
from bonas_core.storage import lease as lease_module
from bonas_core.testing import ToyEvaluator, timeless, toy_problem
from bonas_core.trials.history import TrialHistory

SEARCH = {
    "method": {"initial": 4, "retrain_every": 3, "pool": 50},
    "predictor": {"layers": 2, "width": 8, "epochs": 4},
}


def folder_in(store: str) -> Location:
    return make_folder(store_folder(store) / "search")


def names(folder: Location) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back_listed_and_removed(store: str):
    folder = folder_in(store)
    for content in (b"one", b"", b"two" * 1_000_000):
        write_whole(folder / "file", content)
        assert read_whole(folder / "file", 1 << 30) == content
    write_whole(folder / "other", b"x")
    assert names(folder) == ["file", "other"]
    assert [path.name for path in folder.glob("f*")] == ["file"]
    remove_file(folder / "file")
    remove_file(folder / "file")
    assert names(folder) == ["other"]
    assert not (folder / "file").exists()
    with pytest.raises(FileNotFoundError):
        read_whole(folder / "file", 10)
    remove_folder(folder)
    assert not (folder / "other").exists()


def test_folders_are_told_from_files(store: str):
    folder = folder_in(store)
    below = make_folder(folder / "predictors" / "a")
    write_whole(below / "predictor.safetensors", b"x")
    assert (below.is_dir(), below.is_file(), below.exists()) == (True, False, True)
    file = below / "predictor.safetensors"
    assert (file.is_dir(), file.is_file(), file.exists(), file.is_symlink()) == (False, True, True, False)
    assert [path.parent.name for path in (folder / "predictors").glob("*/predictor.safetensors")] == ["a"]
    assert (file.name, file.stem, below.parent.name) == ("predictor.safetensors", "predictor", "predictors")
    assert pickle.loads(pickle.dumps(file)) == file


def test_a_file_that_is_set_aside_keeps_its_content(store: str):
    folder = folder_in(store)
    write_whole(folder / "part.parquet", b"damaged")
    aside = set_aside(folder / "part.parquet")
    assert aside.name == "part.parquet.corrupt"
    assert names(folder) == ["part.parquet.corrupt"]
    assert read_whole(aside, 10) == b"damaged"


def test_larger_files_than_there_can_be_are_refused(store: str):
    write_whole(folder_in(store) / "file", b"12345")
    with pytest.raises(StoreError, match=r"file.*` has 5 bytes, more than the 4 that such a file may have"):
        read_whole(folder_in(store) / "file", 4)


def test_a_search_is_recorded_resumed_and_compacted(store: str, monkeypatch):
    monkeypatch.setattr("bonas_core.trials.history._COMPACT_AT", 8)
    folder = folder_in(store)
    run(toy_problem(5, **SEARCH), TrialHistory(folder / "trials"), folder / "checkpoints")
    log = run(toy_problem(11, **SEARCH), TrialHistory(str(folder / "trials")), folder / "checkpoints")
    assert timeless(log.rows) == timeless(run(toy_problem(11, **SEARCH)).rows)
    history = TrialHistory(folder / "trials")
    assert len(history.parts()) < 10
    history.compact()
    assert len(history.parts()) == 1
    assert history.trials() == log.rows
    assert len(history.to_pandas()) == 11


def test_a_damaged_part_is_set_aside_and_its_trial_done_again(store: str):
    folder = folder_in(store) / "trials"
    whole = run(toy_problem(7, **SEARCH), TrialHistory(folder)).rows
    part = folder / "trial-000005.parquet"
    write_whole(part, read_whole(part, 1 << 20)[:-50])
    with pytest.raises(StoreError, match=r"trial-000005\.parquet.*` cannot be read"):
        TrialHistory(folder).trials()
    with pytest.warns(UserWarning, match=r"set aside as `.*trial-000005\.parquet\.corrupt"):
        rows = run(toy_problem(7, **SEARCH), TrialHistory(folder)).rows
    assert timeless(rows) == timeless(whole)
    assert "trial-000005.parquet.corrupt" in names(folder)
    assert TrialHistory(folder).trials() == rows


def test_predictors_and_states_of_samplers_are_kept(store: str):
    folder, problem = folder_in(store), toy_problem(8, **SEARCH)
    log = run(problem)
    model = problem.strategy.fit_model(log.trials, 0)
    model.write(folder / "predictor.safetensors")
    again = read_model(folder / "predictor.safetensors")
    assert again.fitted.version == model.fitted.version
    genotypes = log.trials.genotypes
    assert (again.predict(problem.space, genotypes)[0] == model.predict(problem.space, genotypes)[0]).all()
    SamplerState("v", 3, {}).write(folder / "state.safetensors")
    assert read_state(folder / "state.safetensors") == SamplerState("v", 3, {})


class Epochs(ToyEvaluator):
    """Trains three epochs, leaves a file after each, and goes on from it; `trained` holds (seed, epoch)."""

    trained: list[tuple[int, int]] = []  # noqa: RUF012
    dies_after = 0

    def evaluate(self, architecture, context: EvaluationContext) -> Outcome:
        state = context.checkpoints / "epoch.json"
        for epoch in range(read_json(state)["epoch"] + 1 if state.exists() else 1, 4):
            write_whole(state, json.dumps({"epoch": epoch}).encode())
            Epochs.trained.append((context.seed, epoch))
            context.progress(epoch, {})
            if len(Epochs.trained) == Epochs.dies_after:
                raise KeyboardInterrupt
        return super().evaluate(architecture, context)


def test_a_training_goes_on_from_its_last_epoch(store: str, monkeypatch):
    monkeypatch.setattr(Epochs, "trained", [])
    folder = folder_in(store)
    parts = {"method": {"name": "random"}, "evaluator": {"kind": "test_stores:Epochs"}}
    monkeypatch.setattr(Epochs, "dies_after", 5)
    with pytest.raises(KeyboardInterrupt):
        run(toy_problem(3, **parts), TrialHistory(folder / "trials"), folder / "checkpoints")
    run(toy_problem(3, **parts), TrialHistory(folder / "trials"), folder / "checkpoints")
    assert len(Epochs.trained) == len(set(Epochs.trained)) == 9


def test_a_second_writer_is_refused_and_told_who_holds_the_search_and_since_when(store: str, monkeypatch):
    folder = folder_in(store)
    assert not is_locked(folder)
    with holding(folder) as process:
        assert is_locked(folder)
        with pytest.raises(SearchLockedError) as caught, single_writer(folder):
            pass
        said = str(caught.value)
        assert said.startswith(f"search `search` is being written by process {process.pid} on {os.uname().nodename} ")
        since = said.partition(" since ")[2].partition(";")[0]
        assert datetime.fromisoformat(since).tzinfo is not None
        assert said.endswith("; wait for it, or stop it and run `bonas resume search`")
        process.stdin.close()
    assert not is_locked(folder)
    with single_writer(folder):
        assert is_locked(folder)
    assert not is_locked(folder)


def test_the_right_to_write_is_free_some_time_after_its_holder_is_killed(store: str, monkeypatch):
    folder = folder_in(store)
    with holding(folder) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    monkeypatch.setattr(lease_module, "LEASE_S", -1.0)  # as if a minute had passed
    assert not is_locked(folder)
    with single_writer(folder):
        write_whole(folder / "file", b"")
    assert [path.name for path in folder.glob(".writers/*")] == []


def test_of_many_that_start_at_once_never_two_may_write(store: str):
    folder, inside, refused, overlaps = folder_in(store), [], [], []
    barrier = threading.Barrier(5)

    def contend() -> None:
        barrier.wait()
        try:
            with single_writer(folder):
                inside.append(1)
                overlaps.append(len(inside))
                os.stat(folder) if isinstance(folder, Path) else folder.exists()
                inside.pop()
        except SearchLockedError:
            refused.append(1)

    threads = [threading.Thread(target=contend) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(overlaps) <= {1}
    assert len(overlaps) + len(refused) == 5
    with single_writer(folder):
        pass


def test_who_could_not_renew_a_lease_does_not_write(s3: str, monkeypatch):
    folder = store_folder(s3.format("asleep")) / "search"
    with single_writer(folder):
        write_whole(folder / "trials" / "file", b"")
        monkeypatch.setattr(lease_module, "_TRUSTED_S", 0.0)  # as if the process had slept
        for change in (write_whole, lambda path, data: remove_file(path)):
            with pytest.raises(SearchLockedError, match="could not renew its lease in time, another may be writing"):
                change(folder / "trials" / "file", b"late")
        write_whole(folder.parent / "other" / "file", b"")  # another search is not concerned
    assert read_whole(folder / "trials" / "file", 10) == b""


def test_a_lease_is_renewed_while_it_is_held(s3: str, monkeypatch):
    monkeypatch.setattr(lease_module, "_RENEW_S", 0.01)
    renewed = threading.Event()
    renew = lease_module._Lease.renew

    def watched(lease: lease_module._Lease) -> None:
        renew(lease)
        if threading.current_thread().name == "lease":
            renewed.set()

    monkeypatch.setattr(lease_module._Lease, "renew", watched)
    folder = store_folder(s3.format("renewed")) / "search"
    with single_writer(folder):
        assert renewed.wait(30)
        assert is_locked(folder)
    assert not is_locked(folder)


def test_uris_are_read_and_printed():
    uri = "s3://bucket/a%20b/c?endpoint_override=127.0.0.1:9000&scheme=http"
    path = store_folder(uri)
    assert path == S3Path("bucket", "a b/c", (("endpoint_override", "127.0.0.1:9000"), ("scheme", "http")))
    assert store_folder(str(path)) == path
    assert store_folder(str(path / "x")) == path / "x"
    assert str(store_folder("s3://bucket/x/")) == "s3://bucket/x"
    assert (store_folder("s3://bucket") / "x").parents == [S3Path("bucket", "")]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://key:secret@bucket/x", "keys do not belong in its name; set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x?access_key=1", "store option `access_key` is not known"),
        ("s3://bucket/x?region=", "store option `region` is not known or empty"),
        ("s3:///x", "is not a bucket and a prefix; write it as s3://bucket/prefix"),
        ("s3://bucket/../other", "is not a bucket and a prefix"),
        ("s3://bucket/x/..", "is not a bucket and a prefix"),
        ("s3://Bucket_/x", "is not a bucket and a prefix"),
    ],
)
def test_uris_that_are_no_stores_are_refused_and_keys_not_repeated(uri: str, said: str):
    with pytest.raises(StoreError) as caught:
        store_folder(uri)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_endpoint_comes_from_the_usual_variables(s3: str, monkeypatch):
    address = dict(store_folder(s3).options)["endpoint_override"]
    for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            patch.setenv(variable, f"http://{address}")
            write_whole(store_folder("s3://bucket/by-variable"), variable.encode())
    assert read_whole(store_folder(s3.format("by-variable")), 100) == b"AWS_ENDPOINT_URL_S3"


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/x?{}", "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http"])
def test_a_bucket_that_cannot_be_reached_is_told_in_one_line(uri: str, s3: str):
    path = store_folder(uri.format(s3.partition("?")[2]))
    for action in (lambda: write_whole(path, b""), lambda: check_writable(path)):
        with pytest.raises(StoreError, match=r"check bucket, endpoint and keys|does not exist; make it") as caught:
            action()
        assert "\n" not in str(caught.value)
