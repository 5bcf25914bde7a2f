"""Where things are kept: the home folder of BONAS, its searches, and the databases of Prefect and MLflow in it."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bonas_core.errors import StoreError
from bonas_core.storage import (
    Location,
    check_id,
    is_locked,
    make_local_folder,
    read_json,
    refuse_links,
    store_folder,
    write_whole,
)
from bonas_core.storage.tensors import SUFFIX
from bonas_core.trials import Objective

SEARCH_FILE = "search.json"
STATE_FILE = "state.json"
TRAINING_FILE = "training.json"
"""What a folder of final trainings has in place of a search file; see `tasks/home/training_folder.py`."""
REPORT_NAME = "report.html"
DISPATCH_FOLDER = "dispatch"
SCHEMA = 1
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")
_MANIFEST = {
    "uid": str,
    "fingerprint": str,
    "space": str,
    "seed": int,
    "settings": dict,
    "objective": dict,
    "versions": dict,
    "mlflow": dict,
}


def home() -> Path:
    """The folder that everything is kept in by default: `./.bonas`, or what BONAS_HOME names."""
    return Path(os.environ.get("BONAS_HOME") or ".bonas").expanduser().absolute()


def default_store() -> Path:
    """The store used where none is named."""
    return home() / "searches"


def local_tracking_uri() -> str:
    """MLflow's tracking store where none is named: SQLite in the home folder."""
    return f"sqlite:///{make_local_folder(home()) / 'mlflow.db'}"


def services_file() -> Path:
    """Names the servers that `bonas up` runs for this home; it is there as long as they are."""
    return home() / "services" / "running.json"


def local_service(name: str) -> str | None:
    """Address of a server that `bonas up` runs for this home: `prefect_api_url` or `mlflow_url`; None without one."""
    if is_locked(services_file().parent):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(services_file().read_text())[name])
    return None


def use_local_services() -> None:
    """Points Prefect and MLflow at the home folder, unless the environment points them elsewhere; call it before
    importing either. Neither reports usage to anyone.
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


@dataclass(frozen=True)
class SearchFolder:
    """The folder of one search, on the disk or in S3."""

    path: Location

    @property
    def id(self) -> str:
        """The search's id."""
        return self.path.name

    @property
    def trials(self) -> Location:
        """Parquet parts of the history."""
        return self.path / "trials"

    @property
    def checkpoints(self) -> Location:
        """Training state, one folder a trial."""
        return self.path / "checkpoints"

    @property
    def dispatch(self) -> Location:
        """Trials that were given to trainers in other processes, one folder a trial."""
        return self.path / DISPATCH_FOLDER

    @property
    def predictors(self) -> Location:
        """Fitted predictors, one file a version."""
        return self.path / "predictors"

    @property
    def samplers(self) -> Location:
        """What a sampler that learns has learnt, one file a state."""
        return self.path / "samplers"

    @property
    def warm_start(self) -> Location:
        """The predictor that trainings start from, where there is one."""
        return self.path / f"warm_start{SUFFIX}"

    @property
    def report(self) -> Location:
        """Figures and the HTML report."""
        return self.path / "report"

    def exists(self) -> bool:
        """Whether a search has been started here."""
        return (self.path / SEARCH_FILE).is_file()

    def read(self) -> dict[str, Any]:
        """What was fixed when the search was started: `settings`, `fingerprint`, `versions` and more.

        Raises:
            StoreError: there is no such search, or the file is damaged.
        """
        if not self.exists():
            if (self.path / TRAINING_FILE).is_file():
                raise StoreError(f"`{self.id}` is a training, not a search; see it with `bonas show {self.id}`")
            known = ", ".join(folder.id for folder in searches(self.path.parent)) or "none"
            raise StoreError(f"search `{self.id}` is not in `{self.path.parent}`; searches there: {known}")
        try:
            refuse_links(self.path)
            manifest = read_json(self.path / SEARCH_FILE)
            schema = manifest["schema"]
            if schema == SCHEMA:
                _check_manifest(manifest)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"search file `{self.path / SEARCH_FILE}` is damaged ({error}); restore it or start another"
            ) from None
        if schema != SCHEMA:
            raise StoreError(f"search `{self.id}` has schema {schema}, this release reads {SCHEMA}; upgrade")
        return dict(manifest)

    def read_state(self) -> dict[str, Any]:
        """How the last process left the search: `state`, `reason` and the `budget` it worked to; empty if it never
        ran."""
        try:
            found = read_json(self.path / STATE_FILE)
        except (OSError, ValueError, StoreError):
            return {}
        kinds = {"state": str, "reason": str, "budget": dict}
        return {name: found[name] for name, kind in kinds.items() if isinstance(found.get(name), kind)}

    def write_state(self, state: str, reason: str, budget: dict[str, Any]) -> None:
        """Says where the search stands."""
        content = {"state": state, "reason": reason, "budget": budget}
        write_whole(self.path / STATE_FILE, json.dumps(content).encode())

    def state(self) -> str:
        """`running`, `finished`, `paused` (stopped in good order), or `interrupted` (its process died)."""
        if is_locked(self.path):
            return "running"
        state = str(self.read_state().get("state", "interrupted"))
        return "interrupted" if state == "running" else state

    def write(self, manifest: dict[str, Any]) -> None:
        """Writes what a search was started with."""
        write_whole(self.path / SEARCH_FILE, json.dumps({"schema": SCHEMA, **manifest}, indent=2).encode())


def _check_manifest(manifest: dict[str, Any]) -> None:
    for name, kind in _MANIFEST.items():
        if not isinstance(manifest[name], kind):
            raise ValueError(f"`{name}` is not a {kind.__name__}")
    if not _UID.fullmatch(manifest["uid"]):
        raise ValueError("`uid` is not one")
    if not all(isinstance(text, str) for text in manifest["objective"].values()):
        raise ValueError("`objective` is not a mapping of texts")
    Objective(**manifest["objective"])


def search_folder(search_id: str, store: str | None = None) -> SearchFolder:
    """The folder of a search by its id, in a store or the default one; it need not exist.

    Raises:
        StoreError: the id or the store is not acceptable.
    """
    folder = store_folder(store) if store else default_store()
    path = folder / check_id(search_id)
    if path.is_symlink():
        raise StoreError(f"search `{search_id}` is a symbolic link; searches are folders of the store itself")
    return SearchFolder(path)


def searches(store: Location) -> list[SearchFolder]:
    """All searches of a store, by id."""
    folders = [SearchFolder(path) for path in sorted(store.iterdir())] if store.is_dir() else []
    return [folder for folder in folders if folder.exists() and not folder.path.is_symlink()]
