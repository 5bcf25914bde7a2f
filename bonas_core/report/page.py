"""The report of a search: one HTML page that holds its style and its figures and loads nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from bonas_core.report.analysis import (
    Predictions,
    Progress,
    RandomSearch,
    Scale,
    Summary,
    best_so_far,
    draws_to_match,
    evaluated,
    honest_correlation,
    leaderboard,
    mean_best_so_far,
    predictions,
    progress,
    random_search,
    rank,
    summary,
)
from bonas_core.report.durations import duration
from bonas_core.spaces.base import SearchSpace
from bonas_core.storage import Location, make_folder, write_whole
from bonas_core.trials import Objective, Trial, TrialState

_LEADERS = 20
_FAILURES = 50
_OTHERS = 30  # stored random searches drawn
_NONE = "\N{EN DASH}"


def write_report(
    path: Location,
    *,
    title: str,
    trials: Sequence[Trial],
    objective: Objective,
    space: SearchSpace,
    settings: Mapping[str, object],
    versions: Mapping[str, str],
    state: str,
    population: Sequence[float] | None = None,
    random_trials: Sequence[Sequence[float]] = (),
) -> None:
    """Writes the report of a search as one self-contained HTML file, whole or not at all.

    Args:
        path: the file; its folder is made.
        title: names the search.
        trials: all of them, in any state.
        objective: what was searched for.
        space: where; it draws the best architecture.
        settings: the tree of settings that the search was run with.
        versions: versions of packages by name.
        state: where the search stands, in a word.
        population: objectives of all architectures, where a closed table knows them; random search is then exact.
        random_trials: objectives, in order of evaluation, of other random searches with the same evaluator.

    Raises:
        StoreError: the file cannot be written.
    """
    page = _Page(
        title=title,
        trials=list(trials),
        objective=objective,
        space=space,
        settings=settings,
        versions=versions,
        state=state,
        population=None if population is None else [value for value in population if math.isfinite(value)],
        random_trials=[values for values in random_trials if len(values)],
    )
    make_folder(path.parent)
    write_whole(path, page.render().encode())


@dataclass(frozen=True)
class _Page:
    """What a report is about; each method renders one section."""

    title: str
    trials: list[Trial]
    objective: Objective
    space: SearchSpace
    settings: Mapping[str, object]
    versions: Mapping[str, str]
    state: str
    population: list[float] | None
    random_trials: list[Sequence[float]]

    def render(self) -> str:
        found = summary(self.trials, self.objective)
        leaders = leaderboard(self.trials, self.objective)[:_LEADERS]
        show = _Formatter(Scale.of(self.objective), [trial.objective for trial in leaders])
        parts = [
            self._header(found),
            self._headline(found, show),
            self._progress(found, show),
            self._prediction(),
            self._cell(found),
            self._leaderboard(leaders, show),
            self._failures(),
            self._settings(),
            self._versions(),
            self._times(found),
        ]
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)} · BONAS report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
            + "\n".join(part for part in parts if part)
            + "\n</main>\n</body>\n</html>\n"
        )

    def _header(self, found: Summary) -> str:
        method = self.settings.get("method")
        facts = {
            "Space": self.space.name + (f", {self.space.size:,} architectures" if self.space.size else ""),
            "Objective": f"{self.objective.name} ({self.objective.unit}, {self.objective.direction})",
            "Method": _value(method.get("name")) if isinstance(method, Mapping) else _NONE,
            "Seed": _value(self.settings.get("seed")),
            "Evaluations": f"{_plural(found.evaluations, 'evaluation')} of "
            f"{_plural(found.distinct, 'distinct architecture')}: {found.done:,} done, {found.failed:,} failed, "
            f"{found.diverged:,} diverged" + (f"; {found.proposed:,} not ended yet" if found.proposed else ""),
        }
        span = _span(self.trials)
        if span:
            facts["When"] = span
        listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
        return (
            f'<header>\n<p class="kind">BONAS search report</p>\n'
            f'<h1>{escape(self.title)} <span class="state">{escape(self.state)}</span></h1>\n'
            f'<dl class="facts">{listed}</dl>\n</header>'
        )

    def _headline(self, found: Summary, show: _Formatter) -> str:
        best = found.best
        cards = []
        if best is None or best.objective is None:
            cards.append(("Best objective", _NONE, "no trial has an objective yet"))
        else:
            place = ""
            if self.population:
                position = rank(self.population, best.objective, self.objective)
                place = f"rank {position:,} of {len(self.population):,} in the table"
            cards.append(("Best objective", show(best.objective), place))
            if "test" in best.metrics:
                note = "test, reported only: the search never saw it"
                cards.append(("Its test metric", show(best.metrics["test"]), note))
            nth = 1 + [trial.trial for trial in evaluated(self.trials)].index(best.trial)
            note = f"evaluation {nth:,} of {found.evaluations:,}"
            draws = draws_to_match(self.population, best.objective, self.objective) if self.population else None
            if draws is not None:
                note += f"; random search needs {draws:,.0f} on average for one as good"
            cards.append(("Found at", f"trial {best.trial}", note))
        each = f"{duration(found.evaluation_s / found.evaluations)} per evaluation" if found.evaluations else ""
        cards.append(("Evaluation time", duration(found.evaluation_s), each))
        share = f"{duration(found.surrogate_s / len(self.trials))} per trial" if self.trials else ""
        cards.append(("Surrogate time", duration(found.surrogate_s), f"choosing trials; {share}" if share else ""))
        body = "".join(
            f'<div class="card"><p class="name">{escape(name)}</p><p class="figure">{escape(figure)}</p>'
            f"<p>{escape(note)}</p></div>"
            for name, figure, note in cards
        )
        return f'<section aria-label="Headline figures" class="cards">{body}</section>'

    def _progress(self, found: Summary, show: _Formatter) -> str:
        heading = "Best so far against random search"
        if found.best is None:
            return _section(heading, _note("No trial has an objective yet."))
        from bonas_core.report import figures

        curve = progress(self.trials, self.objective)
        count = len(curve.best)
        random, label, explained = self._random(count)
        others = [best_so_far(values, self.objective) for values in self.random_trials[:_OTHERS]]
        # where random search is exact, a mean of few searches would only blur it
        mean = mean_best_so_far(self.random_trials, self.objective) if len(others) > 1 and random is None else None
        optimum = None
        if self.population:
            optimum = (max if self.objective.direction == "maximise" else min)(self.population)
        final = float(curve.best[-1])
        said = f"Best objective so far over {_plural(count, 'evaluation')}: it ends at {show(final)}."
        if random is not None:
            said += f" {label}: {show(float(random.mean[-1]))} after {len(random.mean)}."
        if mean is not None:
            n = min(len(mean), count)
            said += (
                f" Stored random searches: {show(float(mean[n - 1]))} on average after {n:,}, this search "
                f"{show(float(curve.best[n - 1]))}."
            )
        svg = figures.best_so_far(
            curve, show.scale, self.objective.direction, random, label, others, mean, optimum, said
        )
        caption = [explained]
        if others:
            caption.append(
                f"Thin grey lines: {_plural(len(others), 'stored random search', 'stored random searches')} with the "
                "same evaluator"
                + (f" (of {len(self.random_trials)})." if len(self.random_trials) > len(others) else ".")
            )
        if mean is not None:
            n = min(len(mean), count)
            caption.append(
                f"Dashed: the mean of all {len(self.random_trials)}, as far as all of them go; after "
                f"{_plural(n, 'evaluation')} it is {show(float(mean[n - 1]))}, this search has "
                f"{show(float(curve.best[n - 1]))}."
            )
        caption.append(self._compared(curve, random, show))
        return _section(heading, _figure(svg, " ".join(filter(None, caption))))

    def _random(self, count: int) -> tuple[RandomSearch | None, str, str]:
        """Random search to compare with, its label, and where it comes from."""
        if self.population:
            return (
                random_search(self.population, count, self.objective),
                "random search, exact mean",
                "Random search is exact: the best of n draws without replacement from all "
                f"{len(self.population):,} objectives of the table, its mean and the range between 10 % and 90 % of "
                "searches.",
            )
        if self.random_trials:
            return None, "", ""
        initial = [
            trial.objective
            for trial in leaderboard(self.trials, self.objective)
            if trial.sampler == "initial" and trial.objective is not None
        ]
        if len(initial) < 2:
            return None, "", "There is no random search to compare with."
        return (
            random_search(initial, len(initial), self.objective),
            f"random search, estimated from the {len(initial)} initial trials",
            f"Random search is only estimated: from this search's own {len(initial)} random initial trials, drawn "
            "again without replacement, and only up to that number.",
        )

    def _compared(self, curve: Progress, random: RandomSearch | None, show: _Formatter) -> str:
        if not self.population or random is None:
            return ""
        count = len(random.mean)
        return (
            f"After {_plural(count, 'evaluation')} this search has {show(float(curve.best[count - 1]))}, random search "
            f"{show(float(random.mean[-1]))} on average ({show(float(random.worse[-1]))} to "
            f"{show(float(random.better[-1]))})."
        )

    def _prediction(self) -> str:
        heading = "Predicted against actual"
        found = predictions(self.trials)
        if not len(found.actual):
            return _section(heading, _note("No trial that was predicted has an objective yet."))
        from bonas_core.report import figures

        agreement = honest_correlation(self.trials)
        table = _table(
            [_Column("", "text"), _Column("", "number")],
            [
                ("Spearman (rank) correlation", _correlation(agreement.spearman)),
                ("Pearson correlation", _correlation(agreement.pearson)),
                ("Trials, n", f"{agreement.n:,}"),
                *_errors(found, Scale.of(self.objective)),
            ],
        )
        said = (
            f"Predicted over actual objective of {_plural(agreement.n, 'trial')}: Spearman correlation "
            f"{_correlation(agreement.spearman)}, Pearson correlation {_correlation(agreement.pearson)}."
        )
        svg = figures.predicted_against_actual(found, Scale.of(self.objective), said)
        text = (
            "<p><strong>Honest: every prediction was made before its trial ran.</strong> Bars are one predicted "
            "standard deviation to either side; on the dashed line prediction and outcome are equal.</p>"
            "<p>Trials were chosen because much was expected of them, so that they are alike: over the whole space the "
            "same predictor usually correlates more strongly than here.</p>"
        )
        return _section(heading, f'<div class="beside">{_figure(svg, "")}<div>{text}{table}</div></div>')

    def _cell(self, found: Summary) -> str:
        best = found.best
        if best is None:
            return ""
        from bonas_core.report import figures

        architecture = self.space.architecture(self.space.parse([best.architecture])[0])
        operations, edges = architecture.operations, architecture.edges
        arrows = ", ".join(f"{i} {operations[i]} to {j} {operations[j]}" for i, j in edges)
        said = f"Graph of {architecture.vertices} vertices and {_plural(len(edges), 'edge')}: {arrows}."
        svg = figures.cell(architecture, self.space.vocabulary, said)
        caption = "Operations are vertices, data flows from left to right."
        if "none" in operations:
            caption += " Dashed: operations `none`, which pass nothing on."
        body = f'<p><code class="text">{escape(best.architecture)}</code></p>'
        if best.key != best.architecture:
            body += f'<p class="note">identity <code>{escape(best.key)}</code></p>'
        return _section(f"Best architecture: trial {best.trial}", _figure(svg, caption) + body)

    def _leaderboard(self, leaders: list[Trial], show: _Formatter) -> str:
        total = sum(trial.state is TrialState.DONE for trial in self.trials)
        heading = f"Leaderboard: the best {len(leaders)} of {_plural(total, 'trial')}" if leaders else "Leaderboard"
        if not leaders:
            return _section(heading, _note("No trial has an objective yet."))
        columns = [
            _Column("rank", "number"),
            _Column("trial", "number"),
            _Column(f"objective ({show.scale.unit})", "number"),
            _Column(f"test ({show.scale.unit})", "number"),
            _Column(f"predicted ± std ({show.scale.unit})", "number"),
            _Column("sampler", "word"),
            _Column("params", "number"),
            _Column("epochs", "number"),
            _Column("cost (s)", "number"),
            _Column("architecture", "code"),
        ]
        rows = [
            (
                str(place),
                str(trial.trial),
                show.bare(trial.objective),
                show.bare(trial.metrics.get("test")),
                _predicted(trial, show),
                trial.sampler or _NONE,
                _NONE if trial.params is None else f"{trial.params:,}",
                _NONE if trial.epochs is None else f"{trial.epochs:,}",
                _NONE
                if trial.cost_s is None
                else f"{trial.cost_s:,.0f}"
                if trial.cost_s >= 100
                else f"{trial.cost_s:.3g}",
                trial.architecture,
            )
            for place, trial in enumerate(leaders, start=1)
        ]
        return _section(heading, _table(*_without_empty(columns, rows)))

    def _failures(self) -> str:
        lost = [trial for trial in evaluated(self.trials) if trial.state is not TrialState.DONE]
        if not lost:
            return ""
        columns = [
            _Column("trial", "number"),
            _Column("state", "word"),
            _Column("attempts", "number"),
            _Column("error", "text"),
            _Column("architecture", "code"),
        ]
        rows = [
            (str(t.trial), t.state.value, str(t.attempt), t.error or _NONE, t.architecture) for t in lost[:_FAILURES]
        ]
        body = _table(columns, rows)
        if len(lost) > _FAILURES:
            body += _note(f"The first {_FAILURES} of {len(lost):,} are shown.")
        return _section("Failed and diverged trials", body)

    def _settings(self) -> str:
        top = {name: value for name, value in self.settings.items() if not isinstance(value, Mapping)}
        groups: dict[str, Mapping[str, object]] = {"search": top} if top else {}
        groups |= {name: value for name, value in self.settings.items() if isinstance(value, Mapping)}
        body = "".join(
            f"<div><h3>{escape(name)}</h3>{_table([_Column('', 'text'), _Column('', 'text')], _flattened(group))}</div>"
            for name, group in groups.items()
        )
        return _section("Settings", f'<div class="groups">{body}</div>' if groups else _note("None are known."))

    def _versions(self) -> str:
        rows = [(str(name), str(version)) for name, version in self.versions.items()]
        body = _table([_Column("package", "text"), _Column("version", "text")], rows) if rows else ""
        return _section("Versions", f'<div class="narrow">{body}</div>' if rows else _note("None are known."))

    def _times(self, found: Summary) -> str:
        costs = [trial.cost_s for trial in self.trials if trial.cost_s is not None]
        choosing = [trial.surrogate_s for trial in self.trials]
        spent = found.evaluation_s + found.surrogate_s
        if not spent:
            return _section("Where the time went", _note("No times are recorded."))
        columns = [_Column("", "text"), *(_Column(name, "number") for name in ("total", "share", "trials"))]
        columns += [_Column(name, "number") for name in ("mean", "median", "longest")]
        rows = [
            (
                name,
                duration(sum(times)),
                f"{sum(times) / spent:.1%}".replace("%", " %"),
                f"{len(times):,}",
                *_spread(times),
            )
            for name, times in (("evaluating", costs), ("choosing (surrogate)", choosing))
        ]
        elapsed = _elapsed(self.trials)
        note = (
            ""
            if elapsed is None
            else f"From the first proposal to the last result: {duration(elapsed)}, pauses included."
        )
        return _section("Where the time went", _table(columns, rows) + (_note(note) if note else ""))


class _Formatter:
    """Prints objectives: percent with as many decimals (2 to 4) as tell the leaders apart."""

    def __init__(self, scale: Scale, leaders: Iterable[float | None]) -> None:
        self.scale = scale
        values = {value * scale.factor for value in leaders if value is not None}
        self._decimals = next((d for d in (2, 3) if len({f"{v:.{d}f}" for v in values}) == len(values)), 4)

    def bare(self, value: float | None) -> str:
        """A value without its unit."""
        if value is None or not math.isfinite(value):
            return _NONE
        value *= self.scale.factor
        return f"{value:.{self._decimals}f}" if self.scale.unit == "%" else f"{value:.6g}"

    def __call__(self, value: float | None) -> str:
        """A value with its unit."""
        return f"{self.bare(value)}\N{NO-BREAK SPACE}{self.scale.unit}".strip()


@dataclass(frozen=True)
class _Column:
    title: str
    kind: str
    """`text`, `word` (never broken), `number` or `code`."""


def _table(columns: Sequence[_Column], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts; a table whose columns have no titles has headers in its first column."""
    titled = any(column.title for column in columns)
    head = ""
    if titled:
        titles = "".join(f'<th scope="col" class="{column.kind}">{escape(column.title)}</th>' for column in columns)
        head = f"<thead><tr>{titles}</tr></thead>"
    body = []
    for row in rows:
        cells = [
            f'<td class="{column.kind}">{_code(text) if column.kind == "code" else escape(text)}</td>'
            for column, text in zip(columns, row, strict=True)
        ]
        if not columns[0].title:
            cells[0] = f'<th scope="row">{escape(row[0])}</th>'
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'


def _code(text: str) -> str:
    """An architecture that may break between its parts, where it would not fit."""
    parts = re.split(r"(?<=[+;,])", text)
    return f"<code>{''.join(f'<span>{escape(part)}</span>' for part in parts)}</code>"


def _without_empty(columns: Sequence[_Column], rows: Sequence[Sequence[str]]) -> tuple[list[_Column], list[list[str]]]:
    """The table without the columns in which no row has anything."""
    kept = [place for place in range(len(columns)) if any(row[place] != _NONE for row in rows)]
    return [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _flattened(group: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in group.items():
        if isinstance(value, Mapping) and value:
            rows += _flattened(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _value(value)))
    return rows


def _value(value: object) -> str:
    """A setting as text; the password of an address is left out, since reports are passed on."""
    if value is None or value == {} or value == []:
        return _NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return re.sub(r"(?<=://)[^/@\s]+@", "…@", str(value))


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def _correlation(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _errors(found: Predictions, scale: Scale) -> list[tuple[str, str]]:
    """How far predictions were off, and how often their own deviation says so."""
    distance = abs(found.mean - found.actual)
    unit = "points" if scale.unit == "%" else scale.unit
    rows = [("Median distance from the outcome", f"{median(distance.tolist()) * scale.factor:.3g} {unit}".strip())]
    known = found.std > 0
    if known.any():
        inside = int((distance <= found.std)[known].sum())
        rows.append(("Outcomes within one std (68 % if calibrated)", f"{inside:,} of {int(known.sum()):,}"))
    return rows


def _predicted(trial: Trial, show: _Formatter) -> str:
    if trial.predicted_mean is None:
        return _NONE
    std = "" if trial.predicted_std is None else f" ± {show.bare(trial.predicted_std)}"
    return show.bare(trial.predicted_mean) + std


def _plural(count: int, noun: str, nouns: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def _spread(times: Sequence[float]) -> tuple[str, str, str]:
    if not times:
        return _NONE, _NONE, _NONE
    return duration(sum(times) / len(times)), duration(median(times)), duration(max(times))


def _span(trials: Sequence[Trial]) -> str:
    """First proposal and last result as text, in UTC."""
    proposed = [trial.proposed_at for trial in trials if trial.proposed_at is not None]
    finished = [trial.finished_at for trial in trials if trial.finished_at is not None]
    if not proposed or not finished:
        return ""
    return f"{min(proposed):%Y-%m-%d %H:%M} to {max(finished):%Y-%m-%d %H:%M} UTC"


def _elapsed(trials: Sequence[Trial]) -> float | None:
    proposed = [trial.proposed_at for trial in trials if trial.proposed_at is not None]
    finished = [trial.finished_at for trial in trials if trial.finished_at is not None]
    return (max(finished) - min(proposed)).total_seconds() if proposed and finished else None


_STYLE = """
:root { color-scheme: light; --ink: #222; --muted: #5f5f5f; --line: #e2e2e2; --accent: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 64px; }
.kind { margin: 0; color: var(--muted); font-size: 13px; }
h1 { margin: 2px 0 12px; font-size: 27px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 44px 0 12px; font-size: 19px; border-bottom: 1px solid var(--line); padding-bottom: 5px; }
h3 { margin: 0 0 4px; font-size: 14px; }
.state { font-size: 13px; font-weight: 600; vertical-align: middle; padding: 3px 10px; border-radius: 12px;
  background: #e3f0f8; color: #00456d; white-space: nowrap; }
.facts { display: grid; gap: 2px; margin: 0; }
.facts div { display: grid; grid-template-columns: 104px 1fr; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin-top: 24px; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.card p { margin: 0; font-size: 13px; line-height: 1.35; color: var(--muted); }
.card .name { color: var(--ink); font-weight: 600; }
.card .figure { font-size: 25px; line-height: 1.45; color: var(--accent); font-variant-numeric: tabular-nums; }
figure { margin: 0; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption, .note { color: var(--muted); font-size: 13.5px; margin: 8px 0 0; max-width: 86ch; }
.beside { display: grid; grid-template-columns: minmax(0, auto) minmax(260px, 1fr); gap: 28px; align-items: start; }
.beside p { margin: 0 0 12px; }
.groups { columns: 3 300px; column-gap: 32px; }
.groups > div { break-inside: avoid; padding-bottom: 20px; }
.groups th { width: 42%; }
.narrow { max-width: 420px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 400; color: var(--muted); } thead th { vertical-align: bottom; }
.number { text-align: right; } .number, .word { white-space: nowrap; }
td.text { overflow-wrap: anywhere; }
code { font: 12px/1.45 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; overflow-wrap: anywhere; }
td.code { min-width: 400px; } code span { display: inline-block; }
code.text { font-size: 14px; }
@media (max-width: 760px) {
  .beside { grid-template-columns: minmax(0, 1fr); }
  figure { overflow-x: auto; } figure svg { max-width: none; }
}
@media print { section { break-inside: avoid-page; } main { max-width: none; padding: 0; } }
"""
