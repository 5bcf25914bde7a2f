"""The home folder of BONAS: the default store, the databases of Prefect and MLflow, and the servers of `bonas up`."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from bonas_core.storage import is_locked, make_local_folder


def home() -> Path:
    """Returns the folder that everything is kept in by default: `./.bonas`, or what BONAS_HOME names."""
    return Path(os.environ.get("BONAS_HOME") or ".bonas").expanduser().absolute()


def default_store() -> Path:
    """Returns the store used where none is named."""
    return home() / "searches"


def local_tracking_uri() -> str:
    """Returns the URI of MLflow's tracking store where none is named: SQLite in the home folder."""
    return f"sqlite:///{make_local_folder(home()) / 'mlflow.db'}"


def services_file() -> Path:
    """Returns the file that names the servers of `bonas up` for this home; it is there as long as they are."""
    return home() / "services" / "running.json"


def local_service(name: str) -> str | None:
    """Finds the address of a server of `bonas up`, `prefect_api_url` or `mlflow_url`; None where it does not run."""
    if is_locked(services_file().parent):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(services_file().read_text())[name])
    return None


def use_local_services() -> None:
    """Points Prefect and MLflow at the home folder, unless the environment points them elsewhere.

    It has to be called before either is imported. Neither reports usage to anyone.
    """
    api = None if "PREFECT_API_URL" in os.environ else local_service("prefect_api_url")
    embedded = not any(name in os.environ for name in ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE"))
    if api is not None:
        os.environ["PREFECT_API_URL"] = api
    elif embedded:
        os.environ["PREFECT_HOME"] = str(home() / "prefect")
    if api is not None or embedded:
        # plain HTTP on loopback: no token to ask for, and no certificates of authorities to read, which takes 0.05 s of
        # CPU for each client, that is, in every round
        os.environ.setdefault("PREFECT_CLIENT_CSRF_SUPPORT_ENABLED", "false")
        os.environ.setdefault("PREFECT_API_SSL_CERT_FILE", str(Path(__file__).with_name("nobody.pem")))
    quiet = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # its first start migrates a database
        "PREFECT_LOGGING_LEVEL": "WARNING",
        # one transaction for many task runs: each of its own would lock SQLite against the next round's start, and the
        # client waits two seconds after every refusal
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "500",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "2",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes and 1.9 GB for jobs that nobody has here
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # an absent server is published to later
        "GIT_PYTHON_REFRESH": "quiet",
        "DO_NOT_TRACK": "1",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)


def shown_uri(uri: str) -> str:
    """A URI without user and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
