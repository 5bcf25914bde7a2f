"""Commands `bonas search`, `resume`, `list`, `show`, `report` and `presets`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonas_core.errors import BonasError
from flows.command.options import AsJson, Overrides, SearchId, Seed, Store, prepare_services
from flows.command.printing import print_json, print_search, print_table, print_training, program
from flows.running.calling import call_flow

if TYPE_CHECKING:
    from bonas_core.settings import Settings


def search(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="`bonas presets` lists what ships.")],
    seed: Seed = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all.")] = None,
    store: Store = None,
    search_id: Annotated[str | None, typer.Option("--id", help="Name of the search.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search for an architecture; the same command again goes on with the same search."""
    from flows.running.continuing import default_id
    from flows.running.presets import load_settings

    settings, name = load_settings(preset, seed=seed, trials=trials, store=store, overrides=overrides or [])
    _run(settings, search_id or default_id(name, settings, bool(overrides)), as_json)


def resume(
    search_id: SearchId,
    trials: Annotated[int | None, typer.Option(help="A larger number of trials in all.")] = None,
    store: Store = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a search that was interrupted, or with a larger budget."""
    from flows.running.opening import stored_settings

    _run(stored_settings(search_id, store, trials, overrides or []), search_id, as_json)


def list_searches(store: Store = None, as_json: AsJson = False) -> None:
    """List the searches and the final trainings of a store."""
    from bonas_core.storage import store_folder
    from flows.running.reporting import show_search, show_training
    from tasks.home.environment import default_store
    from tasks.home.search_folder import searches
    from tasks.home.training_folder import trainings

    def shown(show_one: Callable[[Any], dict[str, Any]], folders: Sequence[Any]) -> list[dict[str, Any]]:
        rows = []
        for found in folders:
            try:
                rows.append(show_one(found))
            except BonasError as error:
                print(f"warning: {error}", file=sys.stderr)
        return rows

    folder = store_folder(store) if store else default_store()
    searched, trained = shown(show_search, searches(folder)), shown(show_training, trainings(folder))
    if as_json:
        print_json({"store": str(folder), "searches": searched, "trainings": trained})
        return
    if not searched and not trained:
        print(f"no searches in {folder}; start one with `bonas search quickstart`")
        return
    if searched:
        print_table(["id", "state", "trials", "best", "objective"], [_listed_search(row) for row in searched])
    if searched and trained:
        print()
    if trained:
        print_table(["id", "state", "trained", "test %", "what"], [_listed_training(row) for row in trained])


def show(search_id: SearchId, store: Store = None, as_json: AsJson = False) -> None:
    """Show where a search or training stands and what it has found."""
    from flows.running.reporting import show_search, show_training
    from tasks.home.run_folder import TRAINING_FILE
    from tasks.home.search_folder import search_folder

    folder = search_folder(search_id, store)
    if (folder.path / TRAINING_FILE).is_file():
        from tasks.home.training_folder import TrainingFolder

        shown, printed = show_training(TrainingFolder(folder.path)), print_training
    else:
        shown, printed = show_search(folder), print_search
    if as_json:
        print_json(shown)
    else:
        printed(shown)


def report(
    search_id: SearchId,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; by default the search's own.")] = None,
    store: Store = None,
) -> None:
    """Write a search's report: one self-contained HTML file."""
    from bonas_core.problem import build
    from bonas_core.trials.history import TrialHistory
    from flows.running.opening import stored_settings
    from flows.running.reporting import write_search_report
    from tasks.home.search_folder import search_folder

    folder = search_folder(search_id, store)
    problem = build(stored_settings(search_id, store, None))
    print(write_search_report(folder, problem, TrialHistory(folder.trials).trials(), folder.state(), out))


def presets(as_json: AsJson = False) -> None:
    """List the presets."""
    from flows.running.presets import presets as all_presets

    found = all_presets()
    if as_json:
        print_json({"presets": [{"name": p.name, "description": p.description, "path": str(p.path)} for p in found]})
    else:
        print_table(["preset", "what it is"], [[preset.name, preset.description] for preset in found])


def _run(settings: Settings, search_id: str, as_json: bool) -> None:
    """Runs a search as a flow, then prints what it found."""
    from flows.running.opening import check_openable, check_unlocked
    from flows.running.reporting import show_search
    from tasks.home.search_folder import search_folder
    from tasks.mlflow_store.client import named_uri

    folder = search_folder(search_id, settings.store)
    named_uri(settings.tracking.uri)
    check_openable(folder, settings)  # everything a person can get wrong is found before any service is started
    check_unlocked(folder.path)
    prepare_services()
    from flows.command.display import displayed

    def flow() -> None:
        from flows.search import search as search_flow

        search_flow(settings, search_id=folder.id)

    with displayed():
        try:
            call_flow(flow, f"search `{folder.id}`", folder.state, f"`bonas resume {folder.id}`")
        except KeyboardInterrupt:
            where = f" --store {settings.store}" if settings.store else ""
            print(f"interrupted; go on with: {program('bonas')} resume {folder.id}{where}", file=sys.stderr)
            raise
    shown = show_search(folder)
    if as_json:
        print_json(shown)
    else:
        print_search(shown)


def _listed_search(shown: dict[str, Any]) -> list[str]:
    return [
        shown["id"],
        shown["state"],
        f"{shown['evaluations']}/{shown['budget']['trials']}",
        "-" if shown["best"] is None else f"{shown['best']['objective']:.4f}",
        shown["objective"]["name"],
    ]


def _listed_training(shown: dict[str, Any]) -> list[str]:
    """Shows of several cells the range of their accuracies, since test images choose none."""
    found = sorted(cell["test"] for cell in shown["cells"] if "test" in cell)
    accuracies = sorted({f"{accuracy:.2f}" for accuracy in (found[0], found[-1])}, key=float) if found else ["-"]
    trained = f"{len(found)}/{len(shown['cells'])}"
    return [shown["id"], shown["state"], trained, " to ".join(accuracies), shown["request"]]
