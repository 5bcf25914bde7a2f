"""Commands `bonas train`, `export` and `cost`: networks trained to the end, written down, and priced before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonas_core.errors import SettingsError
from flows.command.options import (
    AsJson,
    Overrides,
    Overwrite,
    Seed,
    Store,
    TrackingUri,
    check_replaceable,
    prepare_services,
)
from flows.command.printing import print_json, print_table, print_training
from flows.running.calling import call_flow

if TYPE_CHECKING:
    from bonas_core.settings import Settings


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
    seed: Seed = None,
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


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, as `bonas train` prints it.")],
    to: Annotated[Path, typer.Option(help="File that ends in .onnx.")],
    overwrite: Overwrite = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a trained network as ONNX, checked against torch."""
    if to.suffix != ".onnx":
        raise SettingsError(f"--to `{to}`: exports are ONNX; give a file that ends in .onnx")
    to = to.expanduser()
    check_replaceable("--to", to, overwrite)
    prepare_services()
    from bonas_core.image_training.onnx import export_onnx
    from tasks.mlflow_store.networks import load_network

    network = load_network(model, tracking_uri)
    difference = export_onnx(network, to)
    sides = ", ".join(map(str, network.image))
    print(
        f"{to}: images (batch, {sides}) to logits, which differ from torch's by {difference:.1e} of the largest at most"
    )


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
        print_json(found.as_dict())
        return
    print("\n".join(found.lines()))
    print_table(found.header, found.rows())
    print("\n".join(found.conclusion()))


def _train(settings: Settings, cell: str | None, source: str | None, top: int, training_id: str, as_json: bool) -> None:
    """Runs final trainings as a flow, then prints what they found."""
    from flows.running.opening import check_unlocked
    from flows.running.reporting import show_training
    from flows.running.training_plan import prepare

    folder = prepare(settings, cell, source, top, training_id).folder  # before any service is started
    check_unlocked(folder.path)
    prepare_services()
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
        print_json(shown)
    else:
        print_training(shown)
