"""The model card of a trained network: Markdown, with the cell and the training's curve as pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from bonas_core.image_training.trained import TrainedNetwork
from bonas_core.networks.size import NetworkSize
from bonas_core.report.durations import duration

CELL_PICTURE, CURVE_PICTURE = "cell.png", "curve.png"


@dataclass(frozen=True)
class Facts:
    """Facts of a model card that the network itself does not know."""

    title: str
    origin: str
    """Origin of the cell."""
    size: NetworkSize
    images: tuple[int, int, int]
    """Numbers of images: trained on, held out, tested with."""
    epochs: int
    seed: int
    device: str
    cost_s: float
    recipe: Mapping[str, Any]
    """Settings of the training."""
    model: str
    """URI of the registered version."""


def model_card(network: TrainedNetwork, facts: Facts) -> str:
    """Writes the card of a network as Markdown."""
    trained_on, held_out, tested = facts.images
    C, H, W = network.image
    rows = {
        "cell": f"`{network.cell}`",
        "from": facts.origin,
        "space": f"{network.space}, network `{network.kind}`",
        "parameters": f"{facts.size.params:,} (without an auxiliary head)",
        "multiply-adds": f"{facts.size.mult_adds:,} for one image of {C} x {H} x {W}",
        "data": f"{network.data}: {trained_on:,} images to train on, {held_out:,} held out, {tested:,} to test with",
        "training": f"{facts.epochs} epochs, seed {facts.seed}, one run, {duration(facts.cost_s)} on {facts.device}",
    }
    notes = {"validation": "of the last epoch; top-1 may choose cells", "test": "after the last epoch, chose nothing"}
    kinds = {"top-1": "", "top-5": "_top5"} if "test_top5" in network.figures else {"top-1": ""}
    accuracies = [
        f"| {part} | {' | '.join(_percent(network.figures.get(part + kind)) for kind in kinds.values())} | {note} |"
        for part, note in notes.items()
        if part in network.figures
    ]
    lines = [
        f"# {facts.title}",
        "",
        f"![the cell]({CELL_PICTURE})",
        "",
        *(f"* **{name}**: {value}" for name, value in rows.items()),
        "",
        "## Accuracy",
        "",
        f"| images | {' | '.join(kinds)} | |",
        f"| --- |{' --- |' * len(kinds)} --- |",
        *accuracies,
        "",
        "One training with one seed: another seed gives another figure.",
        "",
        "## Training",
        "",
        f"![losses by epoch]({CURVE_PICTURE})",
        "",
        "```yaml",
        yaml.safe_dump(dict(facts.recipe), sort_keys=False).rstrip(),
        "```",
        "",
        "## Use",
        "",
        "```python",
        "from tasks.mlflow_store.networks import load_network",
        "",
        "# images as the data set has them, to logits",
        f'classify = load_network("{facts.model}").classifier()',
        "```",
        "",
        f"    bonas export {facts.model} --to network.onnx",
        "",
    ]
    return "\n".join(lines)


def _percent(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2f} %"
