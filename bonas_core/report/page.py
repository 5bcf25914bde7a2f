"""Report of a search: one HTML page that holds its style and its figures and loads nothing.

The template `page.html.j2` holds the structure and the sentences of the page; this module works out what they state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import compress
from statistics import median
from typing import Any

from bonas_core.report.analysis import (
    RandomSearch,
    Scale,
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
    population = [value for value in population or () if math.isfinite(value)]
    random_trials = [values for values in random_trials if len(values)]
    found = summary(trials, objective)
    leaders = leaderboard(trials, objective)[:_LEADERS]
    show = _Formatter(Scale.of(objective), [trial.objective for trial in leaders])
    method = settings.get("method")
    page = _render(
        show,
        title=title,
        state=state,
        space=space,
        objective=objective,
        method=_value(method.get("name")) if isinstance(method, Mapping) else _NONE,
        seed=_value(settings.get("seed")),
        trials=trials,
        found=found,
        span=_span(trials),
        population=population,
        random_trials=random_trials,
        standing=_standing(found.best, trials, objective, population),
        progress=_progress(trials, objective, population, random_trials, show) if found.best else None,
        prediction=_prediction(trials, show.scale),
        cell=_cell(found.best, space) if found.best else None,
        leaderboard=_leaderboard(leaders, show),
        failures=_failures(trials),
        settings=_groups(settings),
        versions=versions,
        times=_times(trials, found.evaluation_s + found.surrogate_s),
    )
    make_folder(path.parent)
    write_whole(path, page.encode())


def _render(show: _Formatter, **view: Any) -> str:
    """Fills in the template, which escapes every value but the figures that it marks as safe."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bonas_core.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "with_unit": show,
        "duration": duration,
        "correlation": _correlation,
        "thousands": lambda count: f"{count:,}",
        "plural": _plural,
        "architecture_parts": lambda text: re.split(r"(?<=[+;,])", text),
    }
    return environment.get_template("page.html.j2").render(view)


class _Formatter:
    """Prints objectives: percent with as many decimals (2 to 4) as tell the leaders apart."""

    def __init__(self, scale: Scale, leaders: Iterable[float | None]) -> None:
        self.scale = scale
        values = {value * scale.factor for value in leaders if value is not None}
        self._decimals = next((d for d in (2, 3) if len({f"{v:.{d}f}" for v in values}) == len(values)), 4)

    def bare(self, value: float | None) -> str:
        """Prints a value without its unit."""
        if value is None or not math.isfinite(value):
            return _NONE
        value *= self.scale.factor
        return f"{value:.{self._decimals}f}" if self.scale.unit == "%" else f"{value:.6g}"

    def __call__(self, value: float | None) -> str:
        """Prints a value with its unit."""
        return f"{self.bare(value)}\N{NO-BREAK SPACE}{self.scale.unit}".strip()


def _standing(
    best: Trial | None, trials: Sequence[Trial], objective: Objective, population: Sequence[float]
) -> dict[str, Any] | None:
    """Says when the best trial was evaluated and, where there is a table, how the trial compares with it."""
    if best is None or best.objective is None:
        return None
    return {
        "evaluation": 1 + [trial.trial for trial in evaluated(trials)].index(best.trial),
        "rank": rank(population, best.objective, objective),
        "draws": draws_to_match(population, best.objective, objective),
    }


def _progress(
    trials: Sequence[Trial],
    objective: Objective,
    population: Sequence[float],
    random_trials: Sequence[Sequence[float]],
    show: _Formatter,
) -> dict[str, Any]:
    """Compares the best objective so far with that of random search, in numbers and as a figure."""
    from bonas_core.report import figures

    curve = progress(trials, objective)
    count = len(curve.best)
    others = [best_so_far(values, objective) for values in random_trials[:_OTHERS]]
    random, label = (None, "") if others and not population else _random_search(trials, objective, population, count)
    # where random search is exact, a mean of few searches would only blur it
    mean = mean_best_so_far(random_trials, objective)[:count] if len(others) > 1 and random is None else None
    optimum = max(population, key=objective.score) if population else None
    said = f"Best objective so far over {_plural(count, 'evaluation')}: it ends at {show(curve.best[-1])}."
    if random is not None:
        said += f" {label}: {show(random.mean[-1])} after {len(random.mean)}."
    if mean is not None:
        said += (
            f" Stored random searches: {show(mean[-1])} on average after {len(mean):,}, this search "
            f"{show(curve.best[len(mean) - 1])}."
        )
    return {
        "figure": figures.best_so_far(
            curve, show.scale, objective.direction, random, label, others, mean, optimum, said
        ),
        "best": curve.best,
        "random": random,
        "others": others,
        "mean": mean,
    }


def _random_search(
    trials: Sequence[Trial], objective: Objective, population: Sequence[float], draws: int
) -> tuple[RandomSearch | None, str]:
    """Random search with its label: exact in a table, else estimated from the initial trials where two have ended."""
    if population:
        return random_search(population, draws, objective), "random search, exact mean"
    initial = [
        trial.objective
        for trial in leaderboard(trials, objective)
        if trial.sampler == "initial" and trial.objective is not None
    ]
    count = len(initial)
    if count < 2:
        return None, ""
    return random_search(initial, count, objective), f"random search, estimated from the {count} initial trials"


def _prediction(trials: Sequence[Trial], scale: Scale) -> dict[str, Any] | None:
    """Compares what was predicted before the trials ran with their objectives, in numbers and as a figure."""
    found = predictions(trials)
    if not len(found.actual):
        return None
    from bonas_core.report import figures

    agreement = honest_correlation(trials)
    said = (
        f"Predicted over actual objective of {_plural(agreement.n, 'trial')}: Spearman correlation "
        f"{_correlation(agreement.spearman)}, Pearson correlation {_correlation(agreement.pearson)}."
    )
    distance = abs(found.mean - found.actual)
    known = found.std > 0
    unit = "points" if scale.unit == "%" else scale.unit
    return {
        "figure": figures.predicted_against_actual(found, scale, said),
        "agreement": agreement,
        "median": f"{median(distance.tolist()) * scale.factor:.3g} {unit}".strip(),
        "within_std": int((distance <= found.std)[known].sum()),
        "with_std": int(known.sum()),
    }


def _cell(best: Trial, space: SearchSpace) -> dict[str, Any]:
    """Draws the best architecture."""
    from bonas_core.report import figures

    architecture = space.architecture(space.parse([best.architecture])[0])
    operations, edges = architecture.operations, architecture.edges
    arrows = ", ".join(f"{i} {operations[i]} to {j} {operations[j]}" for i, j in edges)
    said = f"Graph of {architecture.vertices} vertices and {_plural(len(edges), 'edge')}: {arrows}."
    return {"figure": figures.cell(architecture, space.vocabulary, said), "has_none": "none" in operations}


def _leaderboard(leaders: Sequence[Trial], show: _Formatter) -> dict[str, Any]:
    """Lists the best trials in a table without the columns in which no trial has anything."""
    unit = show.scale.unit
    columns = [
        ("rank", "number"),
        ("trial", "number"),
        (f"objective ({unit})", "number"),
        (f"test ({unit})", "number"),
        (f"predicted ± std ({unit})", "number"),
        ("sampler", "word"),
        ("params", "number"),
        ("epochs", "number"),
        ("cost (s)", "number"),
        ("architecture", "code"),
    ]
    rows = [
        (
            place,
            trial.trial,
            show.bare(trial.objective),
            show.bare(trial.metrics.get("test")),
            _predicted(trial, show),
            trial.sampler or _NONE,
            _number(trial.params, ","),
            _number(trial.epochs, ","),
            _number(trial.cost_s, ",.0f" if (trial.cost_s or 0) >= 100 else ".3g"),
            trial.architecture,
        )
        for place, trial in enumerate(leaders, start=1)
    ]
    kept = [any(value != _NONE for value in values) for values in zip(*rows, strict=True)]
    return {"columns": list(compress(columns, kept)), "rows": [list(compress(row, kept)) for row in rows]}


def _failures(trials: Sequence[Trial]) -> list[tuple[object, ...]]:
    """Lists the first trials that failed or diverged."""
    lost = [trial for trial in evaluated(trials) if trial.state is not TrialState.DONE]
    return [(t.trial, t.state.value, t.attempt, t.error or _NONE, t.architecture) for t in lost[:_FAILURES]]


def _groups(settings: Mapping[str, object]) -> dict[str, list[tuple[str, str]]]:
    """Lists settings in groups: one for each branch of the tree, after one for the settings outside of branches."""
    top = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    branches = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    groups = {"search": top} | branches if top else branches
    return {name: list(_flattened(group)) for name, group in groups.items()}


def _flattened(group: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in group.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _value(value)


def _value(value: object) -> str:
    """Prints a setting; the password of an address is left out, since reports are passed on."""
    if value is None or value == {} or value == []:
        return _NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return re.sub(r"(?<=://)[^/@\s]+@", "…@", str(value))


def _times(trials: Sequence[Trial], spent: float) -> list[tuple[str, ...]]:
    """Lists what the seconds of a search were spent on; nothing where none are recorded."""
    if not spent:
        return []
    spans = {
        "evaluating": [trial.cost_s for trial in trials if trial.cost_s is not None],
        "choosing (surrogate)": [trial.surrogate_s for trial in trials],
    }
    return [
        (
            name,
            duration(sum(times)),
            f"{100 * sum(times) / spent:.1f} %",
            f"{len(times):,}",
            *(map(duration, (sum(times) / len(times), median(times), max(times))) if times else [_NONE] * 3),
        )
        for name, times in spans.items()
    ]


def _span(trials: Sequence[Trial]) -> tuple[datetime, datetime] | None:
    """First proposal and last result, in UTC."""
    proposed = [trial.proposed_at for trial in trials if trial.proposed_at is not None]
    finished = [trial.finished_at for trial in trials if trial.finished_at is not None]
    return (min(proposed), max(finished)) if proposed and finished else None


def _predicted(trial: Trial, show: _Formatter) -> str:
    if trial.predicted_mean is None:
        return _NONE
    std = "" if trial.predicted_std is None else f" ± {show.bare(trial.predicted_std)}"
    return show.bare(trial.predicted_mean) + std


def _correlation(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


def _plural(count: int, noun: str, nouns: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"
