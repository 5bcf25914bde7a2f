"""The model card of a trained network."""

from __future__ import annotations

from bonas_core.image_training.trained import TrainedNetwork
from bonas_core.networks.size import NetworkSize
from bonas_core.report.card import Facts, model_card

FACTS = Facts("mine, cell 1", "given", NetworkSize(10, 20), (5, 4, 3), 2, 0, "cpu", 1.0, {"epochs": 2}, "models:/a@b")


def accuracies(**figures: float) -> list[str]:
    """The table of a card."""
    network = TrainedNetwork("nasnet", "cell", "nasnet", {}, "images", 100, (3, 8, 8), (), (), figures, {})
    return [line for line in model_card(network, FACTS).splitlines() if line.startswith("|")]


def test_top_5_is_told_where_it_is_known() -> None:
    validation, test = "of the last epoch; top-1 may choose cells", "after the last epoch, chose nothing"
    assert accuracies(test=50.0) == ["| images | top-1 | |", "| --- | --- | --- |", f"| test | 50.00 % | {test} |"]
    found = {"validation": 49.0, "test": 50.0, "validation_top5": 79.0, "test_top5": 80.125}
    assert accuracies(**found) == [
        "| images | top-1 | top-5 | |",
        "| --- | --- | --- | --- |",
        f"| validation | 49.00 % | 79.00 % | {validation} |",
        f"| test | 50.00 % | 80.12 % | {test} |",
    ]
