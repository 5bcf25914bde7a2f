import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from bonas_core.report import write_report
from bonas_core.search import run
from bonas_core.settings import parse_settings
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.testing import toy_problem
from bonas_core.trials import Objective, Trial, TrialState

DONE, FAILED, DIVERGED = TrialState.DONE, TrialState.FAILED, TrialState.DIVERGED
ACCURACY = Objective("toy table: accuracy", "percent", "maximise")
VOID = {"meta", "br", "wbr"}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Page(HTMLParser):
    """A report, read as a browser reads it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, self._open
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def figures(self) -> int:
        return len(self.named("svg"))


def cells(count: int, seed: int = 0) -> list[str]:
    space = NASBench201()
    rows = np.random.default_rng(seed).permutation(space.size)[:count]
    return space.format(space.enumerate()[rows])


def searched(count: int, initial: int = 5, **columns: Any) -> list[Trial]:
    """Trials of a made-up search: random ones, then predicted ones."""
    rng = np.random.default_rng(1)
    trials = []
    for i, text in enumerate(cells(count)):
        value = 80 + 10 * float(rng.random())
        predicted = i >= initial
        made = {
            "objective": value,
            "metrics": {"test": value - 1},
            "sampler": "evolution" if predicted else "initial",
            "predicted_mean": value + float(rng.normal()) if predicted else None,
            "predicted_std": 1.0 if predicted else None,
            "cost_s": 2.0,
            "surrogate_s": 0.25,
            "proposed_at": BEGIN + timedelta(seconds=3 * i),
            "finished_at": BEGIN + timedelta(seconds=3 * i + 2),
        }
        trials.append(Trial(i, i, text, text, **{"state": DONE, **made, **columns}))
    return trials


def report(tmp_path: Path, trials: Sequence[Trial], **changes: Any) -> Page:
    path = tmp_path / "folder" / "report.html"
    arguments: dict[str, Any] = {
        "title": "a search",
        "objective": ACCURACY,
        "space": NASBench201(),
        "settings": parse_settings({"seed": 7}, "test").tree(),
        "versions": {"bonas": "0.1.0"},
        "state": "completed",
    }
    write_report(path, trials=trials, **{**arguments, **changes})
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return Page(path.read_text())


def test_a_report_of_a_real_search_shows_all_there_is(tmp_path: Path) -> None:
    problem = toy_problem(
        trials=16,
        method={"initial": 6, "retrain_every": 5, "pool": 50, "sampler": "evolution"},
        predictor={"epochs": 3},
    )
    log = run(problem)
    page = report(
        tmp_path,
        log.rows,
        objective=problem.objective,
        space=problem.space,
        settings=problem.settings.tree(),
        title="toy search",
    )
    assert log.best is not None
    assert log.best.objective is not None
    assert page.figures == 3
    for text in (
        "toy search",
        "nasbench201, 15,625 architectures",
        "toy accuracy (fraction, maximise)",
        "16 evaluations of 16 distinct architectures: 16 done, 0 failed, 0 diverged",
        f"{log.best.objective:.2%}".replace("%", " %"),
        f"trial {log.best.trial}",
        "test, reported only: the search never saw it",
        "Random search is only estimated: from this search's own 6 random initial trials",
        "Honest: every prediction was made before its trial ran.",
        "Leaderboard: the best 16 of 16 trials",
        "retrain_every",
        "choosing (surrogate)",
    ):
        assert text in page.text
    assert f'<code class="text">{log.best.architecture}</code>' in page.source


def test_a_closed_table_gives_the_exact_random_search_rank_and_draws_to_match(tmp_path: Path) -> None:
    trials = searched(20)
    population = [trial.objective for trial in trials if trial.objective is not None] + [95.0, 70.0, float("nan")]
    page = report(tmp_path, trials, population=population)
    assert "rank 2 of 22 in the table" in page.text
    assert "random search needs 8 on average for one as good" in page.text  # 23 / 3
    assert "from all 22 objectives of the table" in page.text
    assert "random search, exact mean" in page.text
    assert "best of the table" in page.text


def test_stored_random_searches_are_drawn_and_counted(tmp_path: Path) -> None:
    page = report(tmp_path, searched(20), random_trials=[[80.0, 85.0, 70.0], [], [60.0] * 50])
    assert "2 stored random searches with the same evaluator." in page.text
    assert "stored random searches (2)" in page.text
    assert "their mean" in page.text
    assert "the mean of all 2, as far as all of them go; after 3 evaluations it is 72.50" in page.text  # (85 + 60) / 2
    assert "estimated from" not in page.text


def test_a_single_stored_random_search_has_no_mean_and_an_exact_one_replaces_it(tmp_path: Path) -> None:
    assert "their mean" not in report(tmp_path, searched(20), random_trials=[[80.0, 85.0]]).text
    page = report(tmp_path, searched(20), random_trials=[[80.0], [85.0]], population=[80.0, 85.0, 99.0])
    assert "stored random searches (2)" in page.text
    assert "their mean" not in page.text


@pytest.mark.parametrize("count", [1, 2])
def test_a_search_with_few_initial_trials_only_has_no_predictions(tmp_path: Path, count: int) -> None:
    page = report(tmp_path, searched(count))
    assert "No trial that was predicted has an objective yet." in page.text
    assert page.figures == 2
    assert ("There is no random search to compare with." in page.text) == (count == 1)


@pytest.mark.parametrize("state", [FAILED, DIVERGED, TrialState.PROPOSED])
def test_a_search_without_any_objective_says_so(tmp_path: Path, state: TrialState) -> None:
    trials = searched(4, state=state, objective=None, metrics={}, error="the disk is full" if state is FAILED else None)
    page = report(tmp_path, trials, population=[1.0, 2.0])
    assert "No trial has an objective yet." in page.text
    assert page.figures == 0
    assert ("the disk is full" in page.text) == (state is FAILED)
    assert ("Failed and diverged trials" in page.text) == state.is_finished
    assert ("4 not ended yet" in page.text) == (not state.is_finished)


def test_a_search_without_trials_is_reported_with_its_settings(tmp_path: Path) -> None:
    page = report(tmp_path, [], state="created")
    assert page.figures == 0
    assert "0 evaluations of 0 distinct architectures" in page.text
    assert "learning_rate" in page.text
    assert "No times are recorded." in page.text


def test_empty_settings_and_versions_say_so(tmp_path: Path) -> None:
    assert report(tmp_path, [], settings={}, versions={}).text.count("None are known.") == 2


def test_constant_objectives_and_predictions_have_no_correlation(tmp_path: Path) -> None:
    trials = searched(12, objective=81.5, predicted_mean=81.5, predicted_std=0.0)
    page = report(tmp_path, trials, population=[81.5] * 30)
    assert page.figures == 3
    assert page.text.count("not defined") == 2


def test_thousands_of_trials_make_a_page_of_moderate_size(tmp_path: Path) -> None:
    trials = searched(3000)
    page = report(tmp_path, trials, population=[trial.objective or 0.0 for trial in trials])
    assert page.figures == 3
    assert len(page.source) < 1_000_000
    assert "Leaderboard: the best 20 of 3,000 trials" in page.text


def test_only_the_first_of_very_many_failures_are_listed(tmp_path: Path) -> None:
    page = report(tmp_path, searched(120, state=FAILED, objective=None, error="no luck"))
    assert page.text.count("no luck") == 50
    assert "The first 50 of 120 are shown." in page.text


def test_an_objective_to_minimise_in_a_unit_of_its_own_is_reported_as_it_is(tmp_path: Path) -> None:
    objective = Objective("perplexity", "ppl", "minimise")
    page = report(tmp_path, searched(20), objective=objective, population=np.linspace(80, 90, 101).tolist())
    best = min(trial.objective for trial in searched(20) if trial.objective is not None)
    assert f"{best:.6g} ppl" in page.text
    assert "lowest objective so far (ppl)" in page.text
    assert "objective (ppl)" in page.text


def test_a_cell_of_nasbench101_is_drawn_with_its_identity(tmp_path: Path) -> None:
    space = NASBench101()
    text = "input;conv1x1;conv3x3;maxpool3x3;conv3x3;conv3x3;output|0-1,0-2,0-5,0-6,1-5,2-3,3-4,4-5,5-6"
    best = space.architecture(space.parse([text])[0])
    page = report(tmp_path, [Trial(0, 0, best.key, best.text, DONE, objective=90.0)], space=space)
    assert best.key in page.text
    assert any(
        (attributes["aria-label"] or "").startswith("Graph of 7 vertices and 9 edges: 0 input to 1 conv1x1-bn-relu")
        for attributes in page.named("svg")
    )


def test_a_cell_with_operations_none_explains_the_dashes(tmp_path: Path) -> None:
    text = "|none~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    assert "which pass nothing on" in report(tmp_path, [Trial(0, 0, text, text, DONE, objective=1.0)]).text


HOSTILE = "<script>alert(1)</script>\"'&amp;</svg><img src=http://evil.example/x onerror=alert(2)> $\\frac{1}$"


def hostile_space() -> Any:
    architecture = Architecture(("input", HOSTILE, "$x^", "output"), ((0, 1), (1, 2), (2, 3)), HOSTILE, HOSTILE)
    return SimpleNamespace(
        name=HOSTILE,
        size=None,
        vocabulary=("input", HOSTILE, "output"),
        parse=lambda texts: np.zeros((len(texts), 1), dtype=np.int8),
        architecture=lambda genotype: architecture,
    )


def test_hostile_text_appears_as_text_wherever_it_comes_from(tmp_path: Path) -> None:
    trials = [
        *(
            trial.with_changes(architecture=HOSTILE, key=HOSTILE + str(trial.trial), sampler=HOSTILE)
            for trial in searched(8)
        ),
        Trial(8, 8, HOSTILE, HOSTILE, FAILED, error=HOSTILE),
    ]
    page = report(
        tmp_path,
        trials,
        title=HOSTILE,
        objective=Objective(HOSTILE, HOSTILE, "maximise"),
        space=hostile_space(),
        settings={HOSTILE: {HOSTILE: [HOSTILE]}, "seed": HOSTILE},
        versions={HOSTILE: HOSTILE},
        state=HOSTILE,
    )
    assert page.figures == 3
    assert not {"script", "img", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") > 15


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "{{ 7*7 }}", "{% include 'page.css' %}", "{# gone #}"])
def test_markup_and_template_syntax_are_shown_and_not_followed(tmp_path: Path, text: str) -> None:
    trials = [
        *(trial.with_changes(architecture=text, sampler=f"sampler {text}") for trial in searched(8)),
        Trial(8, 8, text, text, FAILED, error=f"error {text}"),
    ]
    page = report(
        tmp_path,
        trials,
        title=f"title {text}",
        objective=Objective(f"accuracy {text}", f"unit {text}", "maximise"),
        space=hostile_space(),
        settings={f"group {text}": {f"name {text}": f"value {text}"}, "seed": text},
        versions={f"package {text}": f"version {text}"},
        state=f"state {text}",
    )
    places = ["title", "state", "accuracy", "unit", "sampler", "error", "group", "name", "value", "package", "version"]
    assert [place for place in places if f"{place} {text}" not in page.text] == []
    assert page.text.count(text) > len(places) + len(trials)  # every architecture of the leaderboard too
    assert page.named("script") == []
    assert page.source.count("box-sizing") == 1  # the style, once


def test_a_page_refers_to_nothing_outside_itself_and_to_nothing_missing(tmp_path: Path) -> None:
    trials = searched(3000)
    page = report(tmp_path, trials, population=[trial.objective or 0.0 for trial in trials])
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, times in ids.items() if times > 1] == []
    referred = [v for _, a in page.tags for k, v in a.items() if k in ("href", "xlink:href", "src", "data") and v]
    referred += re.findall(r"url\(([^)]*)\)", page.source)
    assert referred
    assert [r for r in referred if not (r.startswith("data:image/png;base64,") or r[1:] in ids)] == []
    addresses = set(re.findall(r"https?://[^\"'<> ]+", page.source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, which nothing loads
    assert "@import" not in page.source


def test_every_figure_says_in_words_what_it_shows(tmp_path: Path) -> None:
    page = report(tmp_path, searched(20))
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 30 for a in page.named("svg"))
    assert page.named("html") == [{"lang": "en"}]


def test_equal_searches_have_equal_reports_and_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"svg.hashsalt": None, "font.size": 30, "text.usetex": False, "lines.linewidth": 9}):
        first = report(tmp_path, searched(20)).source
    assert first == report(tmp_path, searched(20)).source
    assert dict(mpl.rcParams) == before


def test_the_password_of_an_address_is_left_out(tmp_path: Path) -> None:
    page = report(tmp_path, [], settings={"tracking": {"uri": "http://me:secret@host:5000/path"}})
    assert "secret" not in page.source
    assert "@host:5000/path" in page.text


def test_columns_that_hold_nothing_are_left_out_of_the_leaderboard(tmp_path: Path) -> None:
    assert "params" not in report(tmp_path, searched(5)).text
    page = report(tmp_path, searched(5, params=12_345, epochs=108, cost_s=54_321.0))
    assert "12,345" in page.text
    assert "54,321" in page.text
    assert "108" in page.text


def test_percentages_have_as_many_decimals_as_tell_the_leaders_apart(tmp_path: Path) -> None:
    def best_of(*objectives: float) -> str:
        trials = [t.with_changes(objective=o) for t, o in zip(searched(len(objectives)), objectives, strict=True)]
        found = re.search(r"Best objective([\d.]+)\s%", report(tmp_path, trials).text)
        assert found
        return found.group(1)

    assert best_of(91.5, 90.0) == "91.50"
    assert best_of(91.501, 91.502) == "91.502"
    assert best_of(91.50001, 91.50002) == "91.5000"


def test_importing_loads_neither_matplotlib_nor_jinja_and_writing_no_pyplot_nor_any_orchestration(
    tmp_path: Path,
) -> None:
    code = """
import sys
from pathlib import Path
from bonas_core.report import write_report
print(*(name in sys.modules for name in ("matplotlib", "jinja2")))
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.trials import Objective, Trial, TrialState
text = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
trials = [Trial(0, 0, text, text, TrialState.DONE, objective=1.0)]
write_report(Path(sys.argv[1]), title="", trials=trials, objective=Objective(""), space=NASBench201(), settings={},
             versions={}, state="")
print("matplotlib" in sys.modules, *(name in sys.modules for name in ("matplotlib.pyplot", "prefect", "mlflow")))
"""
    file = tmp_path / "report.html"
    ended = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False", "True", "False", "False", "False"]
