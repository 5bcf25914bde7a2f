"""From YAML and `--set name=value` to settings, and from faults to one line each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from bonas_core.errors import SettingsError, first_line
from bonas_core.settings.evaluator import KIND_ERROR, TableSettings, TrainingSettings
from bonas_core.settings.method import METHOD
from bonas_core.settings.predictor import PREDICTOR
from bonas_core.settings.tree import Settings


def parse_settings(tree: object, source: str) -> Settings:
    """Checks a tree of settings.

    Args:
        tree: what a YAML file holds.
        source: names it in messages.

    Raises:
        SettingsError: something is unknown, of the wrong type or out of range; the message names the first such
        setting.
    """
    if not isinstance(tree, Mapping):
        raise SettingsError(f"settings `{source}`: the top level is not a mapping; write `name: value` lines")
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(f"settings `{source}`: {_first_fault(error, tree)}") from None


_BRACKETS = re.compile(r"[][{}]")
_DEEPEST = 20  # groups of settings within groups
_MOST_NODES = 100_000  # values in a file, what an alias stands for counted every time
_GROUPS = {"method": METHOD, "predictor": PREDICTOR}
"""Groups whose settings depend on a name among them."""


def _first_fault(error: ValidationError, tree: Mapping[Any, Any]) -> str:
    fault = error.errors()[0]
    location = list(fault["loc"])
    if location[:1] == ["evaluator"]:  # pydantic puts the member of a union that it chose into the place of a fault
        del location[1:2]
    elif location[:2] == ["budget", "stop_at"]:
        del location[2:]
    place = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        siblings = _siblings(location, tree)
        return f"`{place}` is not a setting; " + (f"use one of {', '.join(siblings)}" if siblings else "remove it")
    value = fault.get("input")
    if fault["type"] == "model_type" or (fault["type"] == KIND_ERROR and not isinstance(value, Mapping)):
        return f"`{place}` is a group of settings; write `name: value` lines below it"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == KIND_ERROR and isinstance(value, Mapping):
        message = f"kind `{value.get('kind')}` is not table, training or module:object"
    if location == ["budget", "stop_at"]:
        message = "input should be a finite number or `optimum`"
    message = message[0].lower() + message[1:]
    if not place:
        return message
    shown = f" (it is `{value}`)" if isinstance(value, str | int | float) else ""
    return f"`{place}`: {message}{shown}"


def _siblings(location: Sequence[int | str], tree: Mapping[Any, Any]) -> list[str]:
    """The settings that there are beside one that is none."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        group = tree.get(part) if model is Settings else None
        given = group if isinstance(group, Mapping) else {}
        if part == "evaluator":
            model = TrainingSettings if given.get("kind") == "training" else TableSettings
        elif model is Settings and part in _GROUPS:
            named = _GROUPS[str(part)]
            model = named.settings_class(str(given.get(named.tag) or named.default_name))
        else:
            field = model.model_fields.get(str(part))
            annotation = None if field is None else field.annotation
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                return []
            model = annotation
    return sorted(model.model_fields)


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Reads a YAML mapping.

    Raises:
        SettingsError: it is not YAML, or not a mapping; the message names line and column.
    """
    try:
        tree = _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SettingsError(f"settings `{source}`: {place}not YAML ({error.problem}); correct that line") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise SettingsError(f"settings `{source}`: not YAML ({first_line(error)}); correct the file") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"settings `{source}`: the top level is not a mapping; write `name: value` lines")
    return tree


def _load_yaml(text: str) -> Any:
    """Reads YAML that is no larger, its aliases written out, than settings can be.

    Raises:
        ValueError: it is.
    """
    deepest = 0  # counted here first, since the parser takes time quadratic in it
    for match in _BRACKETS.finditer(text):
        deepest += 1 if match[0] in "[{" else -1
        if deepest > 10 * _DEEPEST:
            raise ValueError("nested too deeply")
    try:
        tree = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    left = _MOST_NODES
    stack = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        left -= 1
        if depth > _DEEPEST or left < 0:
            raise ValueError("nested too deeply" if depth > _DEEPEST else f"more than {_MOST_NODES} values")
        if isinstance(node, Mapping):
            stack += [(inner, depth + 1) for inner in (*node.keys(), *node.values())]
        elif isinstance(node, list | tuple | set):
            stack += [(inner, depth + 1) for inner in node]
    return tree


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree of settings, each with its dotted name."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def with_override(tree: Mapping[str, Any], assignment: str) -> dict[str, Any]:
    """A copy of a tree with one `a.b.c=value` put in; the value is read as YAML.

    Another method, predictor or evaluator starts with its own defaults: `method.name=random` leaves out what the tree
    says of the method before it, and of the predictor which that has.

    Raises:
        SettingsError: the assignment has no `=`, no name, or leads through something that is not a mapping.
    """
    name, equals, text = assignment.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise SettingsError(f"--set `{assignment}`: write it as name=value, for instance budget.trials=50")
    try:
        value = _load_yaml(text) if text.strip() else None
    except (yaml.YAMLError, ValueError):
        shown = assignment if len(assignment) <= 200 else f"{assignment[:200]}..."
        raise SettingsError(f"--set `{shown}`: the value is not YAML; put quotes around it") from None
    result = _without_others(tree, path, value)
    inner = result
    for part in path[:-1]:
        below = inner.get(part)
        if below is not None and not isinstance(below, Mapping):
            raise SettingsError(
                f"--set `{assignment}`: `{part}` is a value, not a group of settings; set it as a whole"
            )
        inner[part] = dict(below or {})
        inner = inner[part]
    inner[path[-1]] = value
    return result


def _without_others(tree: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """The tree without the settings of what is exchanged for something else by an override."""
    result = dict(tree)
    tags = {
        **{name: (group.tag, group.default_name) for name, group in _GROUPS.items()},
        "evaluator": ("kind", "table"),
    }
    if len(path) != 2 or path[1] != tags.get(path[0], ("", ""))[0]:
        return result
    tag, default = tags[path[0]]
    group = tree.get(path[0])
    if isinstance(group, Mapping) and (group.get(tag) or default) != value:
        result[path[0]] = {}
    if path[0] == "method" and (group or {}).get(tag, default) != value:
        result.pop("predictor", None)
    return result


def names_a_plugin(assignment: str) -> bool:
    """Whether a `name=value` says which method, predictor or evaluator there is: such come before all others."""
    return assignment.partition("=")[0].strip() in ("method.name", "predictor.kind", "evaluator.kind")
