"""Text on a terminal: searches, final trainings and tables."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_WAITING_SHOWN = 5


def print_search(shown: dict[str, Any]) -> None:
    """Prints where a search stands, as `show_search` has it."""
    trials, best = shown["trials"], shown["best"]
    unit = {"percent": " %", "fraction": ""}.get(shown["objective"]["unit"], f" {shown['objective']['unit']}")
    print(f"search        {shown['id']} ({shown['state']}{': ' + shown['reason'] if shown['reason'] else ''})")
    print(f"objective     {shown['objective']['name']}, {shown['objective']['direction']}")
    counts = ", ".join(f"{count} {state}" for state, count in trials.items() if count)
    print(f"trials        {counts or 'none'}; {shown['evaluations']} evaluations, {shown['distinct']} distinct")
    for wait in shown["waiting"][:_WAITING_SHOWN]:
        print(f"  trial {wait['trial']} waits {wait['reason']}")
    if len(shown["waiting"]) > _WAITING_SHOWN:
        print(f"  ... and {len(shown['waiting']) - _WAITING_SHOWN} more wait; --json prints all")
    if best is not None:
        print(f"best cell     {best['architecture']}")
        print(f"  objective   {best['objective']:.4f}{unit} (trial {best['trial']})")
        if "test" in best["metrics"]:
            print(f"  test        {best['metrics']['test']:.4f}{unit} (reported only: the search never saw it)")
        if "index" in best["metrics"]:
            print(f"  index       {best['metrics']['index']:.0f} of the table")
    print(f"time          {shown['evaluation_s']:.1f} s evaluating, {shown['surrogate_s']:.1f} s choosing")
    if shown["honest_correlation"] is not None:
        print(f"prediction    rank correlation {shown['honest_correlation']:.2f}, made before the trials ran")
    print(f"history       {shown['history']}")
    print(f"report        {shown['report']}")
    store = shown["settings"].get("store")
    suffix = f" --store {store}" if store else ""
    bonas = program("bonas")
    print(f"next          {bonas} report {shown['id']}{suffix}")
    print(f"              {bonas} rank {shown['space']} --pool 20")
    uri = shown["mlflow"].get("uri")
    if uri and str(uri).startswith("sqlite"):
        print(f"              {program('mlflow')} ui --backend-store-uri {uri} --host 127.0.0.1 --workers 1")


def print_training(shown: dict[str, Any]) -> None:
    """Prints where a training stands, as `show_training` has it."""
    print(f"training      {shown['id']} ({shown['state']}): {shown['request']}")
    for place, cell in enumerate(shown["cells"], start=1):
        print(f"cell {place:<8} {cell['cell']}")
        print(f"  from        {cell['origin']}")
        if "test" not in cell:
            print(f"  epochs      {cell['epochs']} done")
            continue
        held_out = "" if cell["validation"] is None else f"{cell['validation']:.4f} % of images held out, "
        print(f"  accuracy    {held_out}{cell['test']:.4f} % of the test images (after the last epoch, chose nothing)")
        if cell["test_top5"] is not None:
            top5 = cell["validation_top5"]
            held_out = "" if top5 is None else f"{top5:.4f} % of images held out, "
            print(f"  top-5       {held_out}{cell['test_top5']:.4f} % of the test images")
        print(f"  size        {cell['params']:,} parameters, {cell['mult_adds']:,} multiply-adds")
        print(f"  time        {cell['cost_s']:.1f} s, {cell['epochs']} epochs")
        print(f"  card        {cell['card']}")
        print(f"  model       {cell['model']}")


def program(name: str) -> str:
    """Says how to call a program of this environment from here: by its name if that suffices, else by its path."""
    if shutil.which(name):
        return name
    path = Path(sys.executable).parent / name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    print(json.dumps(value, indent=2, default=str))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows below a header, in columns."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
