"""A browser page that says what was looked for when it is not there, and the parts of Prefect's forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Error, Locator, Page, Response, expect

SOON_MS = 30_000
"""For what a page shows by itself."""
LATER_MS = 120_000
"""For what a search has to do first."""
_LOAD_MS = 5_000
expect.set_options(timeout=SOON_MS)


class Viewer:
    """A page.

    Args:
        page: of the browser.
        screenshots: folder for those that are asked for.
        failures: folder for those of what was not as expected.
    """

    def __init__(self, page: Page, screenshots: Path, failures: Path) -> None:
        self.page = page
        self._screenshots = screenshots
        self._failures = failures
        page.set_default_timeout(SOON_MS)

    def shoot(self, name: str) -> None:
        """Saves what is seen now."""
        self.page.screenshot(path=self._screenshots / f"{name}.png")

    @contextmanager
    def looking_for(self, what: str) -> Iterator[None]:
        """Fails with what was looked for, on which page, and a screenshot of it."""
        try:
            yield
        except (AssertionError, Error) as error:
            place, path = self.page.url, self._failures / f"{re.sub(r'[^a-z0-9]+', '-', what.lower())}.png"
            self.page.screenshot(path=path)
            reason = "\n".join(str(error).splitlines()[:4])[:600]
            raise AssertionError(f"{what}: not found on {place}; it looked like {path}\n{reason}") from None

    def open(self, url: str) -> None:
        """Goes to an address."""
        with self.looking_for(f"page {url}"):
            self.page.goto(url)

    def press(self, name: str) -> None:
        """Presses a button."""
        with self.looking_for(f"button {name}"):
            self.page.get_by_role("button", name=name, exact=True).click()

    def await_on_reload(self, what: str, locator: Locator) -> None:
        """Loads the page again until it shows something; its server changes it, the page does not follow by itself."""
        with self.looking_for(what):
            for _ in range(LATER_MS // _LOAD_MS):
                try:
                    expect(locator).to_be_visible(timeout=_LOAD_MS)
                    return
                except AssertionError:
                    self.page.reload()
            expect(locator).to_be_visible()

    def follow(self, link: Locator) -> Viewer:
        """Opens a link that leads to a new tab."""
        with self.looking_for(f"link {link}"), self.page.expect_popup() as opened:
            link.click()
        return Viewer(opened.value, self._screenshots, self._failures)


class RunForm:
    """The form from which a run of a deployment is started.

    Args:
        viewer: shows the form.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def field(self, *path: str) -> Locator:
        """A parameter, by the labels of the groups around it and its own."""
        found = self._viewer.page.locator("form")
        for label in path:
            titled = f"normalize-space()='{label}' or normalize-space()='{label} (Optional)'"
            titles = f"xpath=.//span[contains(@class, 'schema-form-property__label') and ({titled})]"
            around = "xpath=ancestor::div[contains(concat(' ', @class, ' '), ' schema-form-property ')][1]"
            found = found.locator(titles).first.locator(around)
        return found

    def choices(self, *path: str) -> list[str]:
        """What a drop-down offers."""
        page = self._viewer.page
        with self._viewer.looking_for(f"drop-down {' / '.join(path)}"):
            self.field(*path).locator("button.p-select-button__control").focus()
            page.keyboard.press("ArrowDown")
            expect(page.get_by_role("option").first).to_be_visible()
            offered = page.get_by_role("option").all_inner_texts()
            page.keyboard.press("Escape")
            expect(page.get_by_role("option")).to_have_count(0)
        return offered

    def fill(self, value: object, *path: str, kind: str | None = None) -> None:
        """Types a value, in a field that may also be left empty as one of a kind, such as int."""
        with self._viewer.looking_for(f"field {' / '.join(path)}"):
            if kind is not None:
                self.field(*path).get_by_role("button", name=kind, exact=True).click()
            self.field(*path).locator("input, textarea").fill(str(value))

    def submit(self) -> Response:
        """Asks for the run; returns the server's answer."""
        with self._viewer.looking_for("an answer to the form"):
            with self._viewer.page.expect_response("**/create_flow_run") as answer:
                self._viewer.press("Submit")
            return answer.value

    def start(self) -> str:
        """Asks for the run, which must be made; returns its id."""
        answer = self.submit()
        assert answer.ok, f"the form was refused: {answer.text()}"
        return str(answer.json()["id"])
