"""Trained networks as files: what is written is what is loaded, and nothing else is."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bonas_core.errors import InputError, ModelError
from bonas_core.image_training.splits import Splits
from bonas_core.image_training.trained import TrainedNetwork, read_trained, trained_network
from bonas_core.networks.nasnet import cifar_network
from bonas_core.networks.published import PUBLISHED, architecture_of
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.nasnet import TWO_CELLS, NASNet, read_cells
from bonas_core.storage.tensors import read_tensors, write_tensors

SETTINGS = {"channels": 2, "cells": 3, "auxiliary": True, "drop_path": 0.2}
PIXELS = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PAIR = PIXELS, torch.arange(6) % 4
DATA = Splits("made up", 4, PAIR, PAIR, PAIR, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def trained(cell: str = "BONAS", space: NASNet | None = None) -> tuple[torch.nn.Module, TrainedNetwork]:
    architecture = architecture_of(space or NASNet(), cell)
    generator = torch.Generator().manual_seed(1)
    network = cifar_network(architecture, generator=generator, in_channels=3, classes=4, **SETTINGS).train()
    with torch.no_grad():
        network(DATA.normalised(PIXELS))  # so that the statistics of the batch norms are not those of a new network
    kept = trained_network(
        network, architecture, space="nasnet", kind="nasnet", settings=SETTINGS, data=DATA, figures={"test": 25.0}
    )
    return network.eval(), kept


@pytest.mark.parametrize("cell", ["BONAS", "DARTS-V1", "NASNet-A"])
def test_what_is_written_is_loaded_and_takes_pixels(tmp_path: Path, cell: str) -> None:
    network, kept = trained(cell)
    kept.write(tmp_path / "network.safetensors")
    read = read_trained(tmp_path / "network.safetensors")
    assert replace(read, weights={}).__dict__ == {**replace(kept, weights={}).__dict__}
    assert not any(name.startswith("auxiliary") for name in read.weights)
    with torch.inference_mode():
        expected = network(DATA.normalised(PIXELS))
        assert torch.allclose(read.classifier()(PIXELS.float()), expected, atol=1e-6)


def test_published_cells_are_known_by_name_and_by_text() -> None:
    for name, cell in PUBLISHED.items():
        architecture = architecture_of(NASNet(), name)
        assert architecture_of(NASNet(), architecture.text) == architecture
        cells = read_cells(architecture.text)
        assert (cells[0], cells[-1]) == cell.cells
    space = NASNet()
    assert architecture_of(space, "BONAS") == space.architecture(space.parse([architecture_of(space, "BONAS").text])[0])
    assert architecture_of(TWO_CELLS(), "DARTS-V2").text.count(";") == 1
    with pytest.raises(InputError, match="cell `BONUS` is unknown"):
        architecture_of(space, "BONUS")
    with pytest.raises(InputError, match="does not say which sources are concatenated"):
        read_cells("|skip_connect~0|>2,x")
    cell = NASBench201().format(NASBench201().enumerate()[:1])[0]
    assert architecture_of(NASBench201(), cell).text == cell


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another format": ({"format": 2}, "format is not 1"),
    "classes": ({"classes": "4"}, "not those of images and classes"),
    "many classes": ({"classes": 10**12}, "not those of images and classes"),
    "image": ({"image": [3, 8]}, "not those of images and classes"),
    "mean": ({"mean": [0.5]}, "one mean and deviation per channel"),
    "deviation": ({"std": [0.0, 1.0, 1.0]}, "not finite numbers above 0"),
    "text": ({"cell": 3}, "values of other types"),
    "settings": ({"settings": []}, "values of other types"),
    "stranger": ({"stranger": 1}, "unexpected keyword"),
    "code": ({"kind": "os:system"}, "register it as an entry point `bonas.network`"),
    "code of a space": ({"space": "os:system"}, "register it as an entry point `bonas.space`"),
    "unknown network": ({"kind": "tower"}, "cannot be built"),
    "another cell": ({"cell": "DARTS-V1"}, "not those of the cell in it"),
    "no cell": ({"cell": "|x~0|"}, "cannot be built"),
    "huge": ({"settings": {"channels": 4096, "cells": 40}}, "not those of the cell in it"),
    "other settings": ({"settings": {"rooms": 2}}, "cannot be built"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_what_it_says_is_refused_in_one_line(tmp_path: Path, change: str) -> None:
    path = tmp_path / "network.safetensors"
    trained()[1].write(path)
    described, arrays = read_tensors(path)
    changes, message = CHANGES[change]
    write_tensors(path, {**described, **changes}, arrays)
    with pytest.raises(ModelError, match=message) as caught:
        read_trained(path).classifier()
    assert "\n" not in str(caught.value)


def test_damaged_weights_and_pickles_are_refused_and_nothing_is_called(tmp_path: Path) -> None:
    path, trap = tmp_path / "network.safetensors", tmp_path / "trap"
    with pytest.raises(ModelError, match="does not exist"):
        read_trained(path)
    path.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(ModelError, match="is not a trained network"):
        read_trained(path)
    assert not trap.exists()
    trained()[1].write(path)
    whole, arrays = path.read_bytes(), load_file(path)
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    path.write_bytes(whole[:-5])
    with pytest.raises(ModelError, match="is not a trained network"):
        read_trained(path)
    save_file({**arrays, "classifier.bias": np.full(4, np.nan, dtype=np.float32)}, path, header)
    with pytest.raises(ModelError, match="not all of its weights are finite"):
        read_trained(path)


@pytest.mark.slow
def test_an_exported_network_computes_what_torch_does_for_any_number_of_images(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from bonas_core.image_training.onnx import TOLERANCE, export_onnx

    _, kept = trained()
    assert export_onnx(kept, tmp_path / "network.onnx") <= TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 6):
        images = PIXELS[:count].float()
        (found,) = session.run(["logits"], {"images": images.numpy()})
        with torch.inference_mode():
            expected = kept.classifier()(images)
        assert np.abs(found - expected.numpy()).max() <= TOLERANCE * expected.abs().max()
