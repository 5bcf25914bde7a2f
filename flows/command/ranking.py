"""Command `bonas rank`."""

from __future__ import annotations

from typing import Annotated

import typer

from bonas_core.errors import SettingsError
from flows.command.options import AsJson, TrackingUri, prepare_services
from flows.command.printing import print_json, print_table


def rank(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="Registered name of a space, or module:object.")],
    architectures: Annotated[
        list[str] | None, typer.Argument(metavar="[ARCH ...]", help="As the space prints them.")
    ] = None,
    pool: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Rank this many random architectures.")] = None,
    model: Annotated[str | None, typer.Option(help="models:/NAME@ALIAS; by default the space's champion.")] = None,
    tracking_uri: TrackingUri = None,
    seed: Annotated[int, typer.Option(help="Seed of the random pool.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Rank architectures by a registered predictor, without evaluating any."""
    if bool(architectures) == (pool is not None):
        raise SettingsError("rank: give either architectures or --pool N; one of the two says what to rank")
    prepare_services()
    from flows.running.ranking import rank as ranked

    result = ranked(space, architectures or [], pool or 0, model, tracking_uri, seed)
    if as_json:
        print_json(result)
        return
    predicted = f"predicted {result['objective']} ({result['unit']})"
    print(f"{result['model']}, trained on {result['trained_on']} trials; {predicted}")
    rows = [
        [str(r["rank"]), f"{r['predicted']:.3f} ± {r['std']:.3f}", r["architecture"]] for r in result["ranking"][:50]
    ]
    print_table(["rank", "predicted", "architecture"], rows)
    if len(result["ranking"]) > len(rows):
        print(f"... and {len(result['ranking']) - len(rows)} more; --json prints all")
