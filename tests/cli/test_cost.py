"""What trainings would cost, measured here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from flows.command.app import exit_code

SMALL = ["--set", "evaluator.network={channels: 2, cells: 3, stem_stride: 2}", "--set", "evaluator.batch_size=2"]


class TooLarge(nn.Module):
    """A network of 512 TiB."""

    def __init__(self, architecture: object, **settings: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2**47))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONAS_HOME", str(tmp_path / "home"))


def test_a_search_is_priced_without_its_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        exit_code(["cost", "cifar10-bonas", "--cells", "2", "--steps", "1", "--device", "cpu", "--json", *SMALL]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["data"].startswith("made-up images of the shape of cifar10, which is not prepared")
    first, second = found["cells"]
    assert first["images_per_second"] == pytest.approx(2 / first["step_s"])
    assert first["training_s"] > 120 * 22_500 * first["step_s"]  # 45,000 images in batches of 2, and scoring
    assert first["memory"] is None
    assert found["training_s"] == pytest.approx((first["training_s"] + second["training_s"]) / 2)
    assert found["trials"] == 186
    assert found["cpu_days"] == pytest.approx(186 * found["training_s"] / 86_400)
    assert not (tmp_path / "home").exists()


def test_it_is_told_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["cost", "quickstart", "--cells", "1", "--steps", "2", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "data      digits"
    assert lines[3].split() == ["cell", "s/step", "images/s", "h/training", "GPU", "memory"]
    assert lines[4].split()[0] == "0"
    assert "days of 1 thread of this CPU" in lines[-1] + lines[-2]


def test_of_a_preset_for_final_training_one_is_priced(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["cost", "digits-final", "--cells", "1", "--steps", "1", "--device", "cpu"]
    assert exit_code([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["training"] == "digits-final"
    assert "trials" not in found
    assert found["cpu_days"] == pytest.approx(found["training_s"] / 86_400)
    assert exit_code(command) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("training  digits-final: 1 training of 30 epochs, 1,433 images an epoch\n")
    assert "search" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nb201-c10-val"], r"trains no networks \(evaluator.kind: table\)"),
        (["quickstart", "--device", "tpu9"], "device `tpu9` is unknown; use cpu, cuda or cuda:N"),
        (["quickstart", "--device", "meta"], "device `meta` is none that trainings run on"),
        (["quickstart", "--device", "cuda:99"], r"device `cuda:99`: torch sees \d+ GPUs here"),
        (
            ["quickstart", "--set", "evaluator.network={kind: 'test_cost:TooLarge'}"],
            r"network 0 of quickstart does not fit into the memory of cpu \(.*can't allocate memory.*lower",
        ),
        (["quickstart", "--steps", "0"], "Invalid value for '--steps'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    device = [] if "--device" in arguments else ["--device", "cpu"]
    assert exit_code(["cost", *arguments, *device]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert re.search(message, line), line
