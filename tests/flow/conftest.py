"""One Prefect server and one MLflow store for all flow tests, in a folder of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Home folder of a real Prefect server, on loopback, that this process and its children use."""
    home = tmp_path_factory.mktemp("home")
    changed = {"BONAS_HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    before = dict(os.environ)
    os.environ.update(changed)
    from tasks.home.environment import use_local_services

    use_local_services()
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, temporary_settings

    server = SubprocessASGIServer()
    server.start(timeout=120)
    os.environ["PREFECT_API_URL"] = server.api_url
    try:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield home
    finally:
        server.stop()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store."""
    return tmp_path / "searches"
