import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
from filelock import FileLock
from holder import holding

from bonas_core.errors import SearchLockedError, StoreError
from bonas_core.storage import (
    check_id,
    is_locked,
    make_folder,
    remove_unfinished,
    single_writer,
    store_folder,
    write_whole,
)


def test_what_is_written_is_read_back(tmp_path: Path):
    path = tmp_path / "file"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def test_others_may_read_what_is_written(tmp_path: Path):
    write_whole(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "os.write"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "killed"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    call: str, error: BaseException, tmp_path: Path, monkeypatch
):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def failing(*arguments: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(call, failing)
        with pytest.raises((StoreError, KeyboardInterrupt)) as caught:
            write_whole(path, b"new" * 100_000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    if isinstance(error, OSError):
        assert str(caught.value) == (
            f"`{path}` cannot be written: No space left on device; free space or choose another store"
        )


def test_a_new_file_is_not_there_before_all_of_it_is(tmp_path: Path, monkeypatch):
    path, seen = tmp_path / "file", []
    replace = os.replace

    def watching(source: str, target: Path) -> None:
        seen.append((path.exists(), Path(source).read_bytes()))
        replace(source, target)

    monkeypatch.setattr("os.replace", watching)
    write_whole(path, b"all of it")
    assert seen == [(False, b"all of it")]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(
        StoreError, match="file` cannot be written: No such file or directory; make its folder writable"
    ):
        write_whole(tmp_path / "none" / "file", b"")


def test_folders_are_made_with_their_parents(tmp_path: Path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "a").write_text("")
    with pytest.raises(
        StoreError, match=r"^folder `.*/a/b` cannot be made: Not a directory; choose another with --store$"
    ):
        make_folder(tmp_path / "a" / "b")


def test_a_folder_that_is_not_writable_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(StoreError, match="is not writable; choose another with --store"):
        make_folder(tmp_path)


@pytest.mark.parametrize("search_id", ["a", "0", "nb201-seed.1_b", "x" * 100])
def test_ids_that_are_safe_as_folder_names_are_taken(search_id: str):
    assert check_id(search_id) == search_id


@pytest.mark.parametrize(
    "search_id",
    ["", ".", "..", "a..b", ".hidden", "-x", "_x", "a/b", "../a", "a b", "a\n", "a\\b", "é", "x" * 101, "a\0"],
)
def test_ids_that_are_not_are_refused(search_id: str):
    with pytest.raises(StoreError, match="an id is 1 to 100 letters, digits"):
        check_id(search_id)


@pytest.mark.parametrize(
    ("store", "folder"),
    [
        ("/data/searches", "/data/searches"),
        ("file:///data/searches", "/data/searches"),
        ("file://localhost/data", "/data"),
        ("file:///my%20data", "/my data"),
        ("~/searches", str(Path("~/searches").expanduser())),
        ("searches", str(Path.cwd() / "searches")),
        (Path("/data"), "/data"),
    ],
)
def test_stores_are_folders_by_path_or_uri(store: str | Path, folder: str):
    assert store_folder(store) == Path(folder)


@pytest.mark.parametrize("store", ["http://host/x", "file://host/x", "sqlite:///x.db"])
def test_other_uris_are_refused(store: str):
    with pytest.raises(StoreError, match=f"store `{store}`: only folders, file:// and s3:// URIs can be stores"):
        store_folder(store)


def test_a_second_writer_is_refused_and_told_who_holds_the_search(tmp_path: Path):
    with holding(tmp_path) as process:
        assert is_locked(tmp_path)
        with pytest.raises(SearchLockedError) as caught, single_writer(tmp_path):
            pass
        name = tmp_path.name
        assert str(caught.value).startswith(f"search `{name}` is being written by process {process.pid} on ")
        assert str(caught.value).endswith(f"; wait for it, or stop it and run `bonas resume {name}`")
        process.stdin.close()
    assert process.returncode == 0
    with single_writer(tmp_path):
        pass


def test_the_right_to_write_is_free_once_its_holder_is_killed(tmp_path: Path):
    with holding(tmp_path) as process:
        assert is_locked(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not is_locked(tmp_path)
    with single_writer(tmp_path):
        assert json.loads((tmp_path / ".holder.json").read_text())["pid"] == os.getpid()


def test_a_second_writer_in_the_same_process_is_refused_too(tmp_path: Path):
    with single_writer(tmp_path):
        with pytest.raises(SearchLockedError, match=f"process {os.getpid()} on"), single_writer(tmp_path):
            pass
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_right_to_write_is_given_back_at_the_end(error: type | None, tmp_path: Path, monkeypatch):
    kept = []  # so that no lock is freed merely by being collected

    def keeping(path: Path) -> FileLock:
        kept.append(FileLock(path))
        return kept[-1]

    monkeypatch.setattr("bonas_core.storage.writer.FileLock", keeping)
    with pytest.raises(error) if error else nullcontext(), single_writer(tmp_path):
        assert is_locked(tmp_path)
        if error:
            raise error
    assert not is_locked(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '"x"'])
def test_a_holder_that_cannot_be_read_is_another_process(text: str, tmp_path: Path):
    with single_writer(tmp_path):
        (tmp_path / ".holder.json").write_text(text)
        with pytest.raises(SearchLockedError, match="is being written by another process"), single_writer(tmp_path):
            pass


def test_asking_for_the_lock_of_a_new_folder_leaves_no_file(tmp_path: Path):
    assert not is_locked(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(StoreError, match="cannot be locked"), single_writer(tmp_path):
        pass


def test_what_a_killed_process_had_not_finished_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    kept = [tmp_path / "search.json", tmp_path / ".lock", tmp_path / "trials" / "trial-000000.parquet"]
    gone = [tmp_path / ".search.json.x1.tmp", tmp_path / "trials" / ".trial-000001.parquet.y2.tmp"]
    for path in (*kept, *gone):
        path.write_bytes(b"content")
    remove_unfinished(tmp_path)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
