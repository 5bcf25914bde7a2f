"""Local servers and deployments: `bonas up` and `bonas deploy`.

Everything listens on 127.0.0.1. A process that dies is started again; Ctrl-C ends them all.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from bonas_core.errors import SearchError, SettingsError
from bonas_core.storage import make_local_folder, single_writer, write_whole
from tasks.home.environment import home, local_tracking_uri, services_file

FLOW_POOL = "bonas"
TRIAL_POOL = "bonas-trials"
_HOST = "127.0.0.1"
_START_S = 180.0
_RESTART_EVERY_S = 5.0


def definitions() -> Path:
    """Finds the file of deployments: beside the package in a checkout, in it where it is installed."""
    package = Path(__file__).parents[1]
    return next(path for path in (package.parent / "prefect.yaml", package / "prefect.yaml") if path.is_file())


def deploy(slots: int | None, searches: int | None, worker_type: str = "process") -> list[str]:
    """Makes or updates work pools, their limits and the deployments on the server that PREFECT_API_URL names.

    Args:
        slots: trials that the pool of trials runs at a time, over all its workers; None leaves it as it is.
        searches: flows that the pool of flows runs at a time.
        worker_type: of new pools, such as process, docker or kubernetes.

    Returns:
        what was made, a line each.

    Raises:
        SettingsError: no server is named, or it cannot be reached.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise SettingsError("bonas deploy: no Prefect server is named; run `bonas up`, or set PREFECT_API_URL")
    made = []
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
        if error is not None:
            raise SettingsError(f"bonas deploy: Prefect's server {url} cannot be reached ({error}); start it first")
        for name, limit in ((FLOW_POOL, searches), (TRIAL_POOL, slots)):
            made.append(_make_pool(client, name, worker_type, limit))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(definitions())]
    # from a folder without files of its own: Prefect would look for pull steps in the working folder
    done = subprocess.run(command, capture_output=True, text=True, env=_environment({"PREFECT_API_URL": url}))
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise SearchError(f"bonas deploy: {reason[-1] if reason else 'prefect deploy failed'}; see `prefect deploy`")
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            if deployment.work_pool_name in (FLOW_POOL, TRIAL_POOL):
                made.append(f"deployment  {deployment.name} on pool {deployment.work_pool_name}")
    return made


def _make_pool(client: object, name: str, worker_type: str, limit: int | None) -> str:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.base import BaseWorker

    assert isinstance(client, SyncPrefectClient)
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        worker = BaseWorker.get_worker_class_from_type(worker_type)
        if worker is None:
            raise SettingsError(
                f"bonas deploy: there is no worker type `{worker_type}`; install the package that has it"
            ) from None
        template = worker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(name=name, type=worker_type, base_job_template=template, concurrency_limit=limit)
        )
        return f"work pool   {name} ({worker_type}), {_limit(limit)}"
    if limit is not None and limit != pool.concurrency_limit:
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
    return f"work pool   {name} ({pool.type}), {_limit(limit if limit is not None else pool.concurrency_limit)}"


def _limit(limit: int | None) -> str:
    return "no limit" if limit is None else f"at most {limit} at a time"


@dataclass
class Service:
    """One process of `bonas up`."""

    name: str
    command: list[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0

    def start(self) -> None:
        """Starts it, with its output going to its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self.environment),
                start_new_session=True,
            )
        self.started = time.monotonic()

    def keep_alive(self) -> str | None:
        """Starts it again if it has died, and then says so."""
        if self.process is None or self.process.poll() is None:
            return None
        if time.monotonic() - self.started < _RESTART_EVERY_S:
            return None
        code = self.process.returncode
        self.start()
        return f"{self.name} ended with code {code} and was started again; its log is {self.log}"

    def stop(self) -> None:
        """Ends it and what it has started."""
        if self.process is None:
            return
        for number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, number)
                self.process.wait(patience)
                return


@contextmanager
def running(port: int, mlflow_port: int, slots: int, workers: bool = True) -> Iterator[list[Service]]:
    """Runs Prefect's server, MLflow and a worker for each pool, and makes the deployments.

    Yields:
        the services, for `keep_alive`.

    Raises:
        SearchLockedError: they run already.
        SearchError: a server does not start.
    """
    folder = make_local_folder(home() / "services")
    api = f"http://{_HOST}:{port}/api"
    prefect = [sys.executable, "-m", "prefect"]
    # the UI calls the address that it is told, not the one that it is served from
    server = {"PREFECT_API_URL": api, "PREFECT_HOME": str(home() / "prefect")}
    client = {"PREFECT_API_URL": api}

    def service(name: str, command: list[str], environment: Mapping[str, str]) -> Service:
        return Service(name, command, folder / f"{name}.log", environment)

    servers = [
        service("prefect", [*prefect, "server", "start", "--host", _HOST, "--port", str(port)], server),
        service("mlflow", _mlflow(mlflow_port), {}),
    ]
    everything = list(servers)
    with single_writer(folder):
        os.environ["PREFECT_API_URL"] = api
        try:
            for started in servers:
                started.start()
            _await_answer(f"{api}/health", servers[0])
            deploy(slots, None)
            pages = f"http://{_HOST}:{mlflow_port}"
            _await_answer(f"{pages}/health", servers[1])
            write_whole(services_file(), json.dumps({"prefect_api_url": api, "mlflow_url": pages}).encode())
            if workers:
                for pool, limit in ((FLOW_POOL, 10), (TRIAL_POOL, slots)):
                    command = [*prefect, "worker", "start", "--pool", pool, "--limit", str(limit)]
                    everything.append(service(f"worker-{pool}", command, client))
                    everything[-1].start()
            yield everything
        finally:
            services_file().unlink(missing_ok=True)
            for running_service in reversed(everything):
                running_service.stop()


def addresses(port: int, mlflow_port: int) -> list[str]:
    """Lists where people look, a line each."""
    return [
        f"Prefect     http://{_HOST}:{port}",
        f"MLflow      http://{_HOST}:{mlflow_port}/#/experiments",
        f"logs        {home() / 'services'}",
        "start one   bonas search quickstart, or the deployment `search` in Prefect's UI",
    ]


def _mlflow(port: int) -> list[str]:
    command = f"ui --backend-store-uri {shlex.quote(local_tracking_uri())} --host {_HOST} --port {port} --workers 1"
    return [sys.executable, "-m", "mlflow", *shlex.split(command)]


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Makes the environment of a service: this process's, with its import path and the home as they are here."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "BONAS_HOME": str(home()), **extra}


def _await_answer(url: str, service: Service) -> None:
    """Waits until a server answers.

    Raises:
        SearchError: it ends, or does not answer in time.
    """
    opener = build_opener(ProxyHandler({}))  # loopback needs no proxy
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with suppress(URLError, OSError), opener.open(url, timeout=5):
            return
        if service.process is not None and service.process.poll() is not None:
            break
        time.sleep(0.5)
    raise SearchError(f"{service.name} does not answer at {url}; its log is {service.log}, another port may help")
