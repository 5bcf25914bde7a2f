"""What people see in Prefect's and MLflow's pages, in a real browser, against what `bonas up` runs."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest
import yaml
from local_site import LocalSite
from playwright.sync_api import Locator, expect
from viewer import LATER_MS, RunForm, Viewer

from bonas_core.registry import names
from bonas_core.settings import DispatchSettings
from bonas_core.testing import timeless
from bonas_core.trials import Trial
from bonas_core.trials.history import TrialHistory

pytestmark = pytest.mark.browser

NAME = "autumn-digits"
BUDGET = 500  # more than any machine does before the search is cancelled
MORE = 6


def test_the_form_has_choices_descriptions_and_limits(viewer: Viewer, site: LocalSite) -> None:
    form = open_form(viewer, site)
    assert form.choices("settings", "Space") == names("space")
    assert form.choices("settings", "Method", "Name") == names("method")
    backends = DispatchSettings.model_fields["backend"].annotation
    assert form.choices("settings", "Dispatch", "Backend") == list(get_args(backends))
    with viewer.looking_for("a tab for each kind of evaluator"):
        for kind in ("Table", "Training", "Your own"):
            expect(form.field("settings", "Evaluator").get_by_role("button", name=kind, exact=True)).to_be_visible()
    trials = form.field("settings", "Budget", "Trials")
    with viewer.looking_for("the description of budget.trials"):
        expect(trials).to_contain_text("trials in all, the initial ones counted")
    form.fill(0, "settings", "Budget", "Trials")
    assert form.submit().status == 409
    with viewer.looking_for("the limit of budget.trials"):
        expect(viewer.page.get_by_text("0 is less than the minimum of 1").first).to_be_visible()
    viewer.open(f"{site.prefect}/runs")
    with viewer.looking_for("no run of the refused form"):
        expect(viewer.page.get_by_text("0 runs")).to_be_visible()


def test_a_search_is_started_watched_cancelled_and_goes_on_under_its_name(viewer: Viewer, site: LocalSite) -> None:
    form = open_form(viewer, site)
    form.fill(3, "settings", "Evaluator", "Epochs")
    form.fill(4, "settings", "Method", "Initial", kind="int")
    form.fill(4, "settings", "Method", "Retrain Every", kind="int")
    form.fill(BUDGET, "settings", "Budget", "Trials")
    form.fill(NAME, "search_id", kind="str")
    form.field("settings", "Space").scroll_into_view_if_needed()
    viewer.shoot("form")
    run = f"{site.prefect}/runs/flow-run/{form.start()}"
    viewer.open(run)
    expect_state(viewer, "Running")

    page = viewer.page
    page.get_by_text("Artifacts", exact=True).click()
    counted = page.get_by_text(re.compile(rf"^\d+ of {BUDGET} trials"))
    with viewer.looking_for("the progress of the search among its artifacts"):
        expect(counted).to_be_visible(timeout=LATER_MS)
    first = trials_in(counted)
    with viewer.looking_for(f"more than {first} trials, while the page stays open"):
        expect(page.get_by_text(later_than(first)).first).to_be_visible(timeout=LATER_MS)
    viewer.shoot("run")
    page.get_by_text(f"leaderboard-{NAME}").last.click()
    rows = page.get_by_role("row")
    with viewer.looking_for("a leaderboard of architectures as the space prints them"):
        expect(rows.filter(has_text=re.compile(r"~0\|\+\|"))).not_to_have_count(0)
    seen = trials_in(page.get_by_text(re.compile(r"^Best of \d+ trials")))
    viewer.await_on_reload(f"a leaderboard of more than {seen} trials", page.get_by_text(later_than(seen)))
    viewer.shoot("leaderboard")

    viewer.open(run)
    viewer.press("Cancel")
    viewer.press("Confirm")
    expect_state(viewer, "Cancelled")
    before = history(site)
    assert json.loads((site.home / "searches" / NAME / "state.json").read_text())["state"] == "paused"

    open_artifact(viewer, "summary")
    tracked = viewer.follow(page.get_by_role("link", name="run of this search"))
    with tracked.looking_for("the run of the search in MLflow"):
        expect(tracked.page.get_by_text(NAME, exact=True).first).to_be_visible()
        expect(tracked.page.get_by_role("link", name=f"predictor on 4 trials · {NAME}")).to_be_visible()
    report = viewer.follow(page.get_by_role("link", name="open", exact=True))
    with report.looking_for("the report of the paused search"):
        shown = report.page.frame_locator("iframe")
        expect(shown.get_by_role("heading", name=re.compile(NAME))).to_contain_text("paused")
    models = viewer.follow(page.get_by_role("link", name="predictors", exact=True))
    with models.looking_for("the registered predictors"):
        expect(models.page.get_by_role("link", name="Version 1", exact=True)).to_be_visible()

    viewer.open(run)
    with viewer.looking_for("the menu of the run"):
        page.locator(".p-icon-button-menu button").first.click()
        page.get_by_text("Copy to new run").click()
    again = RunForm(viewer)
    with viewer.looking_for("the form with the id of the search filled in"):
        expect(again.field("search_id").locator("textarea")).to_have_value(NAME)
    again.fill(MORE, "more_trials", kind="int")
    viewer.open(f"{site.prefect}/runs/flow-run/{again.start()}")
    expect_state(viewer, "Completed")
    with viewer.looking_for("how far the search was when it went on"):
        told = f"search {NAME} goes on: {sum(trial.state.is_finished for trial in before)} of {BUDGET} trials"
        expect(page.get_by_text(told)).to_be_visible()
    after = history(site)
    finished = [trial for trial in before if trial.state.is_finished]
    assert timeless(after[: len(finished)]) == timeless(finished)
    assert len(after) == len(before) + MORE
    assert all(trial.state.is_finished for trial in after)


def test_mlflow_shows_a_search_its_predictors_and_the_champion(viewer: Viewer, site: LocalSite) -> None:
    name = "finished-digits"
    settings = {
        "space": "nasbench201",
        "evaluator": {"kind": "training", "data": "digits", "epochs": 2},
        "method": {"initial": 5, "retrain_every": 5},
        "budget": {"trials": 16},
    }
    (site.home / "mine.yaml").write_text(yaml.safe_dump(settings))
    site.run("search", "mine.yaml", "--id", name)
    ids = json.loads((site.home / "searches" / name / "search.json").read_text())["mlflow"]
    experiment = f"{site.mlflow}/#/experiments/{ids['experiment_id']}"
    page = viewer.page

    viewer.open(f"{experiment}/runs")
    with viewer.looking_for("the run of the search, which can be unfolded"):
        page.locator(f"[row-id='{ids['run_id']}']").get_by_role("button").first.click()
    for trained_on in (5, 10, 15):
        with viewer.looking_for(f"the nested run of the predictor on {trained_on} trials"):
            expect(page.get_by_text(f"predictor on {trained_on} trials · {name}")).to_be_visible()
    viewer.shoot("mlflow-runs")

    viewer.open(f"{experiment}/runs/{ids['run_id']}/model-metrics")
    expect_curve(viewer, "best_objective")
    expect_curve(viewer, "objective")
    viewer.shoot("mlflow-curves")
    viewer.open(f"{experiment}/runs/{ids['run_id']}")
    with viewer.looking_for("the nested runs on the page of the search"):
        page.get_by_role("link", name=f"predictor on 15 trials · {name}").click()
    with viewer.looking_for("the metrics of the predictor"):
        page.get_by_role("tab", name="Model metrics").click()
    expect_curve(viewer, "loss")

    viewer.open(f"{site.mlflow}/#/models/bonas-nasbench201")
    with viewer.looking_for("the registered model of the space"):
        expect(page.get_by_role("heading", name="bonas-nasbench201")).to_be_visible()
    with viewer.looking_for("the champion among its versions"):
        expect(page.get_by_text("@ champion")).to_be_visible()
    viewer.shoot("mlflow-model")


def open_form(viewer: Viewer, site: LocalSite) -> RunForm:
    """Goes from the list of deployments to the form of `search`, as a person does."""
    page = viewer.page
    viewer.open(f"{site.prefect}/deployments")
    with viewer.looking_for("deployment `search`"):
        page.get_by_role("link", name="search", exact=True).first.click()
    viewer.press("Run")
    with viewer.looking_for("menu entry `Custom run`"):
        page.get_by_text("Custom run").click()
    form = RunForm(viewer)
    with viewer.looking_for("the form drawn from the settings"):
        expect(form.field("settings", "Space")).to_be_visible()
    return form


def open_artifact(viewer: Viewer, kind: str) -> None:
    """Goes from the page of a run to one of its artifacts."""
    with viewer.looking_for(f"artifact {kind}-{NAME}"):
        viewer.page.get_by_text("Artifacts", exact=True).click()
        viewer.page.get_by_text(f"{kind}-{NAME}").last.click()
        viewer.page.wait_for_url("**/artifacts/artifact/**")


def expect_state(viewer: Viewer, state: str) -> None:
    """Waits for the state of the run whose page is open."""
    with viewer.looking_for(f"state {state}"):
        expect(viewer.page.locator(".state-badge").first).to_have_text(state, timeout=LATER_MS)


def expect_curve(viewer: Viewer, metric: str) -> None:
    """Looks for a line through several points in the chart of a metric."""
    chart = viewer.page.locator("[data-testid='experiment-view-compare-runs-card']").filter(
        has=viewer.page.get_by_text(metric, exact=True)
    )
    with viewer.looking_for(f"a curve of {metric}"):
        # charts further down are not drawn
        viewer.page.get_by_placeholder("Search metric charts").fill(metric)
        expect(chart.locator(".scatterlayer path.js-line").first).to_have_attribute("d", re.compile("M.*L"))


def trials_in(text: Locator) -> int:
    """The first number of a text."""
    found = re.search(r"\d+", text.first.inner_text())
    assert found is not None
    return int(found.group())


def later_than(count: int) -> re.Pattern[str]:
    """Matches a text that counts more trials than so many."""
    counts = "|".join(str(number) for number in range(BUDGET, count, -1))
    return re.compile(rf"^(?:Best of )?(?:{counts})\b.* trials")


def history(site: LocalSite) -> list[Trial]:
    """The trials of the search."""
    return TrialHistory(site.home / "searches" / NAME / "trials").trials()
