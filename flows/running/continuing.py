"""Settings that may change when a search or training goes on: one list, for the check and for default ids.

An id made by default stands for everything that is not free to change, so that asking again goes on with the same
search, and asking for something else starts another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bonas_core.errors import SettingsError
from bonas_core.settings import Settings, leaves, parse_settings

_LONGEST_NAME = 70  # characters; an id has 100, of which seed and digest take up to 28


@dataclass(frozen=True)
class Freedom:
    """Settings that may change, and why."""

    names: str
    """Regular expression of their dotted names."""
    reason: str
    applies: Callable[[Settings], bool] = lambda settings: True
    only_larger: bool = False
    """True where they may only grow; None is the largest."""
    in_ids: bool = False
    """True where default ids differ nevertheless: a file of another name may hold other data."""


def _is_synchronous(settings: Settings) -> bool:
    return settings.dispatch.mode == "synchronous"


FREEDOMS = (
    Freedom("store", "a search is its folder, which may have been moved"),
    Freedom(r"tracking\..+", "what a tracking server lacks is published to it again"),
    Freedom(r"dispatch\.(?!mode$|slots$).+", "an outcome depends on its trial alone, wherever it is evaluated"),
    Freedom(
        r"dispatch\.slots",
        "a round is chosen before any of its trials is evaluated; in asynchronous mode the slots decide what is known",
        applies=_is_synchronous,
    ),
    Freedom(r"budget\.(trials|hours)", "trials follow those that were made, which stay", only_larger=True),
    Freedom(r"budget\.stop_at", "it decides when a search ends, not which trials it makes"),
    Freedom(r"evaluator\.(table|data)", "the evaluator's fingerprint knows the content of a file", in_ids=True),
)
"""Freedoms of settings; everything else decides what a search finds."""


def freedom(name: str, settings: Settings) -> Freedom | None:
    """Finds why a setting may change; None if it may not.

    Args:
        name: dotted name of the setting.
        settings: that the search is to go on with.
    """
    found = (free for free in FREEDOMS if re.fullmatch(free.names, name))
    return next((free for free in found if free.applies(settings)), None)


def check_continued(what: str, before: Mapping[str, Any], settings: Settings) -> None:
    """Checks that a search or training may go on with these settings.

    Args:
        what: names it.
        before: tree of the settings that it was started with.
        settings: to go on with.

    Raises:
        SettingsError: a setting is another one, and may not change.
    """
    stored = dict(leaves(parse_settings(before, what).tree()))  # a setting that is newer has its default
    given = dict(leaves(settings.tree()))
    for name in sorted(stored.keys() | given.keys()):
        old, new = stored.get(name), given.get(name)
        free = freedom(name, settings)
        if old == new or (free is not None and (not free.only_larger or _is_larger(new, old))):
            continue
        remedy = f"keep it at {old}" if free is None else "give a larger one"
        raise SettingsError(f"{what} was started with {name} = {old}, not {new}; {remedy}, or start another with --id")


def default_id(name: str, settings: Settings, overrides: bool) -> str:
    """Makes an id that is the same whenever the same search is asked for, so that asking again continues it.

    Args:
        name: of preset, file or space.
        settings: of the search.
        overrides: whether the settings are not simply those of that name.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "search"
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 7]}-{_digest(name)}"
    if not overrides:
        return f"{name}-s{settings.seed}"
    fixed = {
        setting: value
        for setting, value in leaves(settings.tree())
        if (free := freedom(setting, settings)) is None or free.in_ids
    }
    return f"{name}-s{settings.seed}-{_digest(json.dumps(fixed, sort_keys=True))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _is_larger(given: Any, stored: Any) -> bool:
    return given is None or (stored is not None and given >= stored)
