"""The `bonas` command.

Bad input ends with one line on standard error and exit code 2; a search that fails with 1; an interrupted one with
130 and the line that resumes it. Results go to standard output, everything else to standard error. What a command
needs is imported when it runs, so that `bonas --help` is quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bonas_core.errors import BonasError, InputError, SettingsError
from flows.command.printing import print_search, print_training, program
from flows.running.calling import abandoned, call_flow
from flows.running.interruption import install

if TYPE_CHECKING:
    from bonas_core.settings import Settings
    from tasks.home.workspace import SearchFolder

app = typer.Typer(
    name="bonas",
    help="Bayesian-optimised neural architecture search, run as a data pipeline.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Benchmark tables and image sets: prepare and check.", no_args_is_help=True)
app.add_typer(data_app, name="data")
store_app = typer.Typer(help="Stores of searches and trainings: check, compact and export.", no_args_is_help=True)
app.add_typer(store_app, name="store")

Store = Annotated[
    str | None, typer.Option("--store", help="Folder of searches or s3://bucket/prefix; by default ./.bonas/searches.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="A setting as name=value; may be repeated.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SearchIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID ...]", help="Searches; by default all of the store.")
]
SearchId = Annotated[str, typer.Argument(metavar="ID", help="The search's id; `bonas list` shows them.")]


@app.command()
def search(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="`bonas presets` lists what ships.")],
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
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


@app.command()
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


@app.command()
def train(
    what: Annotated[
        str | None, typer.Argument(metavar="PRESET|FILE.yaml", help="The recipe; with --preset, the cell instead.")
    ] = None,
    cell: Annotated[str | None, typer.Option(help="As its space prints it, or a published one such as BONAS.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="ID", help="Search or earlier training whose best cells to train.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many of them.")] = 1,
    preset: Annotated[
        str | None, typer.Option(help="The recipe, as in `bonas train CELL --preset cifar10-final`.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    store: Store = None,
    training_id: Annotated[str | None, typer.Option("--id", help="Name of the training.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the best cells of a search, or a given one, to the end; the same command again goes on."""
    from flows.running.presets import load_settings

    recipe, given = (what, cell) if preset is None else (preset, what if cell is None else cell)
    if recipe is None:
        raise SettingsError("train: no recipe is given; name a preset such as cifar10-final, or a .yaml file")
    settings, name = load_settings(recipe, seed=seed, store=store, overrides=overrides or [])
    from flows.running.training_plan import default_training_id

    training_id = training_id or default_training_id(name, settings, given, source, top, bool(overrides))
    _train(settings, given, source, top, training_id, as_json)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, as `bonas train` prints it.")],
    to: Annotated[Path, typer.Option(help="File that ends in .onnx.")],
    overwrite: Overwrite = False,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server; by default the local store.")] = None,
) -> None:
    """Write a trained network as ONNX, checked against torch."""
    if to.suffix != ".onnx":
        raise SettingsError(f"--to `{to}`: exports are ONNX; give a file that ends in .onnx")
    to = to.expanduser()
    _check_replaceable("--to", to, overwrite)
    _use_local_services()
    from bonas_core.networks.onnx import export_onnx
    from tasks.mlflow_store.networks import load_network

    network = load_network(model, tracking_uri)
    difference = export_onnx(network, to)
    sides = ", ".join(map(str, network.image))
    print(
        f"{to}: images (batch, {sides}) to logits, which differ from torch's by {difference:.1e} of the largest at most"
    )


@app.command("list")
def list_searches(store: Store = None, as_json: AsJson = False) -> None:
    """List the searches and the final trainings of a store."""
    from bonas_core.storage import store_folder
    from flows.running.reporting import show_search, show_training
    from tasks.home.training_folder import trainings
    from tasks.home.workspace import default_store, searches

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
        _print_json({"store": str(folder), "searches": searched, "trainings": trained})
        return
    if not searched and not trained:
        print(f"no searches in {folder}; start one with `bonas search quickstart`")
        return
    if searched:
        _print_table(["id", "state", "trials", "best", "objective"], [_listed_search(row) for row in searched])
    if searched and trained:
        print()
    if trained:
        _print_table(["id", "state", "trained", "test %", "what"], [_listed_training(row) for row in trained])


@app.command()
def show(search_id: SearchId, store: Store = None, as_json: AsJson = False) -> None:
    """Show where a search or training stands and what it has found."""
    from flows.running.reporting import show_search, show_training
    from tasks.home.workspace import TRAINING_FILE

    folder = _folder(search_id, store)
    if (folder.path / TRAINING_FILE).is_file():
        from tasks.home.training_folder import TrainingFolder

        shown, printed = show_training(TrainingFolder(folder.path)), print_training
    else:
        shown, printed = show_search(folder), print_search
    if as_json:
        _print_json(shown)
    else:
        printed(shown)


@app.command()
def report(
    search_id: SearchId,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; by default the search's own.")] = None,
    store: Store = None,
) -> None:
    """Write a search's report: one self-contained HTML file."""
    from bonas_core.build import build
    from bonas_core.trials.history import TrialHistory
    from flows.running.opening import stored_settings
    from flows.running.reporting import write_search_report

    folder = _folder(search_id, store)
    problem = build(stored_settings(search_id, store, None))
    print(write_search_report(folder, problem, TrialHistory(folder.trials).trials(), folder.state(), out))


@app.command()
def rank(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="Registered name of a space, or module:object.")],
    architectures: Annotated[
        list[str] | None, typer.Argument(metavar="[ARCH ...]", help="As the space prints them.")
    ] = None,
    pool: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Rank this many random architectures.")] = None,
    model: Annotated[str | None, typer.Option(help="models:/NAME@ALIAS; by default the space's champion.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server; by default the local store.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random pool.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Rank architectures by a registered predictor, without evaluating any."""
    if bool(architectures) == (pool is not None):
        raise SettingsError("rank: give either architectures or --pool N; one of the two says what to rank")
    _use_local_services()
    from flows.rank import rank as ranked

    result = ranked(space, architectures or [], pool or 0, model, tracking_uri, seed)
    if as_json:
        _print_json(result)
        return
    predicted = f"predicted {result['objective']} ({result['unit']})"
    print(f"{result['model']}, trained on {result['trained_on']} trials; {predicted}")
    rows = [
        [str(r["rank"]), f"{r['predicted']:.3f} ± {r['std']:.3f}", r["architecture"]] for r in result["ranking"][:50]
    ]
    _print_table(["rank", "predicted", "architecture"], rows)
    if len(result["ranking"]) > len(rows):
        print(f"... and {len(result['ranking']) - len(rows)} more; --json prints all")


@app.command()
def presets(as_json: AsJson = False) -> None:
    """List the presets."""
    from flows.running.presets import presets as all_presets

    found = all_presets()
    if as_json:
        _print_json({"presets": [{"name": p.name, "description": p.description, "path": str(p.path)} for p in found]})
    else:
        _print_table(["preset", "what it is"], [[preset.name, preset.description] for preset in found])


@app.command()
def cost(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET|FILE.yaml", help="Settings with `evaluator.kind: training`.")
    ],
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU if there is one.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=10_000, help="Steps to time, of each network.")] = 3,
    cells: Annotated[int, typer.Option(min=1, max=1000, help="Random networks to time.")] = 3,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Time a few steps of a preset's trainings here, and say what the whole search, or a final training, would cost."""
    from flows.command.cost import cost as measured

    found = measured(preset, device, steps, cells, overrides or [])
    if as_json:
        _print_json(found.as_dict())
        return
    print("\n".join(found.lines()))
    _print_table(found.header, found.rows())
    print("\n".join(found.conclusion()))


@app.command()
def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="table1, table2, figure3, figure4, figure5, protocol, batches, transfer, cells or trainings.",
        ),
    ],
    space: Annotated[str, typer.Option(help="Space to run on.")] = "nasbench201",
    seeds: Annotated[int, typer.Option(min=1, max=100_000, help="Repeats, each with a seed of its own.")] = 50,
    first_seed: Annotated[
        int, typer.Option(min=0, max=1_000_000_000, help="Seed of the first repeat; the next ones count up.")
    ] = 0,
    methods: Annotated[str | None, typer.Option(help="Methods, separated by commas; by default all.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes; by default one a core.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results; by default ./.bonas/benchmarks/NAME.")] = None,
) -> None:
    """Regenerate a table of the paper; a benchmark that was stopped goes on where it was."""
    _use_local_services()
    from flows.benchmarks.command import folder_of, run_benchmark
    from flows.benchmarks.plan import Plan

    chosen = None if methods is None else tuple(method.strip() for method in methods.split(",") if method.strip())
    if chosen == ():
        raise SettingsError("--methods names none; name some, or leave it out for all")
    plan = Plan(
        (out or folder_of(name)).absolute(),
        space,
        range(first_seed, first_seed + seeds),
        chosen,
        jobs or os.cpu_count() or 1,
        tuple(overrides or ()),
    )
    print(run_benchmark(name, plan))


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Of Prefect's server and UI.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65_535, help="Of MLflow's server and UI.")] = 5000,
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Trials at a time on the work pool.")] = 2,
) -> None:
    """Run Prefect's server, its workers and MLflow's UI on this machine, until Ctrl-C."""
    import time

    _use_local_services()
    from flows.command.services import addresses, running

    with running(port, mlflow_port, slots) as services:
        print("\n".join(addresses(port, mlflow_port)), flush=True)
        while True:
            for service in services:
                told = service.keep_alive()
                if told:
                    print(f"warning: {told}", file=sys.stderr)
            time.sleep(1)


@app.command()
def deploy(
    slots: Annotated[int | None, typer.Option(min=1, max=1024, help="Trials at a time on the work pool.")] = None,
    searches: Annotated[int | None, typer.Option(min=1, max=1024, help="Flows at a time on the work pool.")] = None,
    worker_type: Annotated[str, typer.Option(help="Of new work pools: process, docker, kubernetes, ...")] = "process",
) -> None:
    """Make work pools, limits and deployments on the Prefect server that PREFECT_API_URL names."""
    _use_local_services()
    from flows.command.services import deploy as deployed

    print("\n".join(deployed(slots, searches, worker_type)))


@data_app.command()
def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Data set, for instance nasbench201.")],
    source: Annotated[Path | None, typer.Option(help="The official file or folder, or your CSV or Parquet.")] = None,
    size: Annotated[
        int | None, typer.Option(min=8, max=1024, help="Side of the images, where it can be chosen.")
    ] = None,
) -> None:
    """Turn official or own files into a checked table or image set that presets find by themselves."""
    from flows.command.datasets import prepare as prepared

    print(prepared(name, source, size))


@data_app.command()
def check(name: Annotated[str, typer.Argument(metavar="NAME", help="Data set, for instance nasbench201.")]) -> None:
    """Check a prepared table or image set against its checksum and its rules."""
    from flows.command.datasets import check as checked

    print(checked(name))


@store_app.command("check")
def check_store(ids: SearchIds = None, store: Store = None, as_json: AsJson = False) -> None:
    """Read everything in a store and say what is wrong; exit code 1 if anything is. Changes nothing."""
    from flows.command.store import check as checked

    searches, trainings = checked(ids or [], store)
    faults = [fault for one in (*searches, *trainings) for fault in one.faults]
    if as_json:
        _print_json(
            {"searches": [one.as_dict() for one in searches], "trainings": [one.as_dict() for one in trainings]}
        )
    else:
        if searches or not trainings:
            _print_table(
                ["id", "trials", "finished", "parts", "predictors", "set aside", "faults"],
                [
                    [s.id, *map(str, (s.trials, s.finished, s.parts, s.predictors, len(s.set_aside), len(s.faults)))]
                    for s in searches
                ],
            )
        if searches and trainings:
            print()
        if trainings:
            _print_table(
                ["id", "cells", "trained", "faults"],
                [[t.id, *map(str, (t.cells, t.trained, len(t.faults)))] for t in trainings],
            )
        for fault in faults:
            print(f"fault: {fault}")
    if faults:
        raise typer.Exit(1)


@store_app.command("compact")
def compact_store(ids: SearchIds = None, store: Store = None, as_json: AsJson = False) -> None:
    """Merge the parts of histories into one file each; running searches do so by themselves."""
    from flows.command.store import compact as compacted

    done = compacted(ids or [], store)
    if as_json:
        _print_json({"searches": [{"id": name, "before": before, "after": after} for name, before, after in done]})
    else:
        _print_table(["id", "parts before", "after"], [[name, str(before), str(after)] for name, before, after in done])


@store_app.command("export")
def export_store(
    search_id: SearchId,
    out: Annotated[Path, typer.Option(help="File that ends in .csv, .parquet or .json.")],
    overwrite: Overwrite = False,
    store: Store = None,
) -> None:
    """Write a search's history as CSV, Parquet or JSON."""
    from flows.command.store import export as exported

    _check_replaceable("--out", out, overwrite)
    print(f"{exported(search_id, out, store)} trials in {out}")


def main() -> NoReturn:
    """Runs the command line and exits."""
    install()
    code = _exit_code(sys.argv[1:])
    if abandoned:  # Prefect would try for minutes to deliver what it has to say
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


# typer's own errors: the base class of its public BadParameter, wherever the installed version keeps it
_CommandLineError = typer.BadParameter.__mro__[2]


def _exit_code(arguments: list[str]) -> int:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # `module:object` may name a module that stands here; last, to shadow nothing
    try:
        result = typer.main.get_command(app).main(args=arguments, prog_name="bonas", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except InputError as error:
        return _complain(error, 2)
    except BonasError as error:
        return _complain(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left; nothing more to say
        return 0
    except _CommandLineError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())  # type: ignore[attr-defined]
            return 2
        return _complain(f"{error.format_message().rstrip('.')}; see `bonas --help`", 2)  # type: ignore[attr-defined]


def _complain(error: object, code: int) -> int:
    print("bonas: " + " ".join(str(error).split("\n")), file=sys.stderr)
    return code


def _run(settings: Settings, search_id: str, as_json: bool) -> None:
    """Runs a search as a flow, then prints what it found."""
    from flows.running.opening import check_openable, check_unlocked
    from flows.running.reporting import show_search
    from tasks.home.workspace import search_folder
    from tasks.mlflow_store.client import named_uri

    folder = search_folder(search_id, settings.store)
    named_uri(settings.tracking.uri)
    check_openable(folder, settings)  # everything a person can get wrong is found before any service is started
    check_unlocked(folder.path)
    _use_local_services()
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
        _print_json(shown)
    else:
        print_search(shown)


def _train(settings: Settings, cell: str | None, source: str | None, top: int, training_id: str, as_json: bool) -> None:
    """Runs final trainings as a flow, then prints what they found."""
    from flows.running.opening import check_unlocked
    from flows.running.reporting import show_training
    from flows.running.training_plan import prepare

    folder = prepare(settings, cell, source, top, training_id).folder  # before any service is started
    check_unlocked(folder.path)
    _use_local_services()
    from flows.command.display import displayed

    def flow() -> None:
        from flows.train import train as train_flow

        train_flow(settings, cell=cell, source=source, top=top, training_id=folder.id)

    with displayed():
        try:
            call_flow(flow, f"training `{folder.id}`", folder.state, "the same command")
        except KeyboardInterrupt:
            print("interrupted; go on with the same command", file=sys.stderr)
            raise
    shown = show_training(folder)
    if as_json:
        _print_json(shown)
    else:
        print_training(shown)


def _use_local_services() -> None:
    from tasks.home.workspace import use_local_services

    use_local_services()
    # failed trials are told in one line by the display; Prefect would print a traceback for each attempt
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def _folder(search_id: str, store: str | None) -> SearchFolder:
    from tasks.home.workspace import search_folder

    return search_folder(search_id, store)


def _check_replaceable(option: str, file: Path, overwrite: bool) -> None:
    file = file.expanduser()
    if file.is_dir():
        raise SettingsError(f"{option} `{file}` is a folder; name a file")
    if file.exists() and not overwrite:
        raise SettingsError(f"{option} `{file}` is there already; name another file, or replace it with --overwrite")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _listed_search(shown: dict[str, Any]) -> list[str]:
    return [
        shown["id"],
        shown["state"],
        f"{shown['evaluations']}/{shown['budget']['trials']}",
        "-" if shown["best"] is None else f"{shown['best']['objective']:.4f}",
        shown["objective"]["name"],
    ]


def _listed_training(shown: dict[str, Any]) -> list[str]:
    """Of several cells the range of their accuracies, since test images choose none."""
    found = sorted(cell["test"] for cell in shown["cells"] if "test" in cell)
    accuracies = sorted({f"{accuracy:.2f}" for accuracy in (found[0], found[-1])}, key=float) if found else ["-"]
    trained = f"{len(found)}/{len(shown['cells'])}"
    return [shown["id"], shown["state"], trained, " to ".join(accuracies), shown["request"]]


if __name__ == "__main__":
    main()
