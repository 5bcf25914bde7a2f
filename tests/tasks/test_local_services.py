from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.home.environment import use_local_services

CERTIFICATES = "PREFECT_API_SSL_CERT_FILE"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path) -> Iterator[None]:
    """An environment that names no server, and that is as it was afterwards."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("PREFECT_", "MLFLOW_")):
            del os.environ[name]
    os.environ["BONAS_HOME"] = str(tmp_path)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_for_a_server_on_loopback_a_single_certificate_is_read() -> None:
    use_local_services()
    assert ssl.create_default_context(cafile=os.environ[CERTIFICATES]).cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "PREFECT_PROFILE"])
def test_a_server_that_is_named_is_checked_against_all_authorities(name: str) -> None:
    os.environ[name] = "https://prefect.example/api"
    use_local_services()
    assert CERTIFICATES not in os.environ
