"""Commands `bonas store check`, `compact` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.command.options import AsJson, Overwrite, SearchId, SearchIds, Store, check_replaceable
from flows.command.printing import print_json, print_table


def check(ids: SearchIds = None, store: Store = None, as_json: AsJson = False) -> None:
    """Read everything in a store and say what is wrong; exit code 1 if anything is. Changes nothing."""
    from flows.command.store import check as checked

    searches, trainings = checked(ids or [], store)
    faults = [fault for s in searches for fault in s.faults] + [fault for t in trainings for fault in t.faults]
    if as_json:
        print_json({"searches": [one.as_dict() for one in searches], "trainings": [one.as_dict() for one in trainings]})
    else:
        if searches or not trainings:
            print_table(
                ["id", "trials", "finished", "parts", "predictors", "set aside", "faults"],
                [
                    [s.id, *map(str, (s.trials, s.finished, s.parts, s.predictors, len(s.set_aside), len(s.faults)))]
                    for s in searches
                ],
            )
        if searches and trainings:
            print()
        if trainings:
            print_table(
                ["id", "cells", "trained", "faults"],
                [[t.id, *map(str, (t.cells, t.trained, len(t.faults)))] for t in trainings],
            )
        for fault in faults:
            print(f"fault: {fault}")
    if faults:
        raise typer.Exit(1)


def compact(ids: SearchIds = None, store: Store = None, as_json: AsJson = False) -> None:
    """Merge the parts of histories into one file each; running searches do so by themselves."""
    from flows.command.store import compact as compacted

    done = compacted(ids or [], store)
    if as_json:
        print_json({"searches": [{"id": name, "before": before, "after": after} for name, before, after in done]})
    else:
        print_table(["id", "parts before", "after"], [[name, str(before), str(after)] for name, before, after in done])


def export(
    search_id: SearchId,
    out: Annotated[Path, typer.Option(help="File that ends in .csv, .parquet or .json.")],
    overwrite: Overwrite = False,
    store: Store = None,
) -> None:
    """Write a search's history as CSV, Parquet or JSON."""
    from flows.command.store import export as exported

    check_replaceable("--out", out, overwrite)
    print(f"{exported(search_id, out, store)} trials in {out}")
