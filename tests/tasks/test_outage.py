from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Event, Thread

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from bonas_core.errors import SettingsError
from tasks.home.outage import watching_servers
from tasks.mlflow_store.client import named_uri

_PATIENCE_S = 30.0


class _Page(BaseHTTPRequestHandler):
    status = 200
    looked_at: Event

    def do_GET(self) -> None:
        self.send_response(self.status if self.path.endswith("/health") else 404)
        self.end_headers()
        self.looked_at.set()

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def server(port: int = 0, status: int = 200) -> Iterator[tuple[int, Event]]:
    looked_at = Event()
    page = type("Page", (_Page,), {"status": status, "looked_at": looked_at})
    with ThreadingHTTPServer(("127.0.0.1", port), page) as running:
        thread = Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield running.server_address[1], looked_at
        finally:
            running.shutdown()


@pytest.mark.parametrize("name", ["Prefect", "MLflow"])
@pytest.mark.parametrize("status", [None, 503])
def test_a_server_that_goes_away_and_comes_back_is_told_of_once_each(name: str, status: int | None) -> None:
    told: Queue[str] = Queue()
    with ExitStack() as watched:
        with server() as (port, looked_at):
            api = f"http://127.0.0.1:{port}/api" if name == "Prefect" else None
            uri = f"http://someone:secret@127.0.0.1:{port}" if name == "MLflow" else "sqlite:///mlflow.db"
            watched.enter_context(temporary_settings({PREFECT_API_URL: api}))
            watched.enter_context(watching_servers(uri, told.put, look_every_s=0.01))
            assert looked_at.wait(_PATIENCE_S)
        if status is None:
            away = told.get(timeout=_PATIENCE_S)
        else:
            with server(port, status):
                away = told.get(timeout=_PATIENCE_S)
        with server(port):
            back = told.get(timeout=_PATIENCE_S)
    assert away.startswith(f"{name}: the server http://127.0.0.1:{port}")
    assert "does not answer" in away
    assert "secret" not in away
    assert back.endswith("is back")
    assert told.empty()


def test_a_server_that_never_answered_is_not_judged() -> None:
    told: Queue[str] = Queue()
    with server(status=500) as (port, looked_at), watching_servers(f"http://127.0.0.1:{port}", told.put, 0.01):
        for _ in range(6):
            assert looked_at.wait(_PATIENCE_S)
            looked_at.clear()
    assert told.empty()


def test_the_tracking_store_is_named_by_the_setting_or_by_mlflows_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert named_uri(None) == "http://127.0.0.1:5000"
    assert named_uri("sqlite:///one.db") == "sqlite:///one.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:mlruns")
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI `file:mlruns`: not a database or server"):
        named_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert named_uri(None) is None
