"""Outages of servers: telling them from everything else that can go wrong, saying so, and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from bonas_core.children import end_with_this_process
from bonas_core.errors import SearchError
from tasks.home.environment import shown_uri

OUTAGES = 20
"""Number of times in a row that work without progress goes on after Prefect's server went away."""
_LOOK_EVERY_S = 2.0
_ALARM_AFTER = 4  # looks in a row without an answer: a busy server misses some


def is_outage(error: BaseException) -> bool:
    """Tells whether an error came from a server that cannot be reached, or that cannot answer."""
    for cause in _causes(error):
        if isinstance(cause, httpx.TransportError):
            return True
        if isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code >= 500:
            return True
        if isinstance(cause, RuntimeError) and "Failed to reach API" in str(cause):
            return True
    return False


def reason_of(error: BaseException) -> str:
    """Describes an error in one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def await_start(warn: Callable[[str], None], patience_s: float = 120.0) -> None:
    """Waits a while for a server that is named but does not answer: it may be starting, as this process is.

    Where none is named, the embedded one is started.

    Raises:
        SearchError: it still does not.
    """
    url = PREFECT_API_URL.value()
    if not url:
        _start_embedded()
        return
    deadline = time.monotonic() + patience_s
    told = False
    while True:
        with get_client(sync_client=True) as client:
            error = client.api_healthcheck()
        if error is None:
            return
        if time.monotonic() > deadline:
            raise SearchError(
                f"Prefect's server {url} cannot be reached ({reason_of(error)}); start it, or unset PREFECT_API_URL to "
                "do without"
            )
        if not told:
            warn(f"Prefect's server {url} cannot be reached; waiting {patience_s:.0f} s for it")
            told = True
        time.sleep(_LOOK_EVERY_S)


@contextmanager
def watching_servers(
    tracking_uri: str | None, warn: Callable[[str], None], look_every_s: float = _LOOK_EVERY_S
) -> Iterator[None]:
    """Warns when Prefect's or MLflow's server goes away, and when it is back; their clients retry in silence.

    Args:
        tracking_uri: of MLflow; looked at where it is a server's.
        warn: called from a thread, with one line.
        look_every_s: seconds between looks.
    """
    pages = {}
    api = PREFECT_API_URL.value()
    if api:
        pages[f"Prefect: the server {api}"] = f"{api.rstrip('/')}/health"
    if tracking_uri and tracking_uri.startswith("http"):
        shown = shown_uri(tracking_uri).rstrip("/")
        pages[f"MLflow: the server {shown}"] = f"{shown}/health"
    done = Event()
    thread = Thread(target=_watch, args=(pages, warn, look_every_s, done), name="outages", daemon=True)
    if pages:
        thread.start()
    try:
        yield
    finally:
        done.set()


def _watch(pages: Mapping[str, str], warn: Callable[[str], None], look_every_s: float, done: Event) -> None:
    # one that has never answered such a look is not judged: it may want a certificate or a token
    missed: dict[str, int] = {}
    with httpx.Client(timeout=10.0) as client:  # each of its own would read all certificates at every look
        while not done.wait(look_every_s):
            for name, page in pages.items():
                if _answers(client, page):
                    if missed.get(name, 0) >= _ALARM_AFTER:
                        warn(f"{name} is back")
                    missed[name] = 0
                elif name in missed:
                    missed[name] += 1
                    if missed[name] == _ALARM_AFTER:
                        warn(f"{name} does not answer; what needs it waits until it is back, nothing recorded is lost")


def _answers(client: httpx.Client, page: str) -> bool:
    try:
        return client.get(page).status_code < 500
    except (httpx.HTTPError, OSError, ValueError):
        return False


def wait_for_server(between: Callable[[], None] = lambda: None) -> None:
    """Waits until the server answers, and starts one anew where it is the embedded one that has died.

    Args:
        between: called between looks; may raise to give up.
    """
    while True:
        between()
        if not PREFECT_API_URL.value():
            _start_embedded()
        try:
            with get_client(sync_client=True) as client:
                if client.api_healthcheck() is None:
                    return
        except (httpx.HTTPError, RuntimeError):
            pass
        time.sleep(_LOOK_EVERY_S)


def _start_embedded() -> None:
    """Starts Prefect's embedded server, unless it runs: one that ends with this process even if that is killed."""
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    if server.server_process is not None and server.server_process.poll() is not None:
        server.running = False  # it has died; it keeps its port: clients know it
    if not server.running:
        server.start()
        assert server.server_process is not None
        end_with_this_process(server.server_process.pid)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
