"""What `bonas up` runs, for real, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from local_site import LocalSite, running_site
from playwright.sync_api import Browser, Playwright, sync_playwright
from viewer import Viewer

_FLAGS = (
    "--no-sandbox",  # as root, as in containers, Chromium has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    """`bonas up` in a home of its own."""
    with running_site(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; closed with the module, since others cannot run an event loop beside it."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_chromium(playwright), args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def viewer(browser: Browser, screenshots: Path, tmp_path: Path) -> Iterator[Viewer]:
    """An empty page of a browser that has been nowhere yet."""
    with ExitStack() as stack:
        context = stack.enter_context(browser.new_context(viewport={"width": 1280, "height": 900}))
        # MLflow opens its assistant, which hides a quarter of the page, on the first visit
        context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        yield Viewer(context.new_page(), screenshots, tmp_path)


@pytest.fixture(scope="session")
def screenshots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of screenshots: what --screenshots names, or a temporary one."""
    named = request.config.getoption("--screenshots")
    if named is None:
        return tmp_path_factory.mktemp("screenshots")
    folder = Path(named).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _chromium(playwright: Playwright) -> str:
    named = os.environ.get("BONAS_CHROMIUM")
    known = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    for path in [named] if named else [*known, playwright.chromium.executable_path]:
        if path and Path(path).is_file():
            return path
    pytest.fail(
        f"no browser{f' at BONAS_CHROMIUM={named}' if named else ''}: install Debian's package `chromium`, or run "
        "`playwright install chromium`, or let BONAS_CHROMIUM name the program",
        pytrace=False,
    )
