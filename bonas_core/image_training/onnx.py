"""Trained networks as ONNX files, checked against torch before they are written."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch

from bonas_core.errors import ModelError, SettingsError
from bonas_core.image_training.trained import TrainedNetwork
from bonas_core.storage import check_writable, write_whole

TOLERANCE = 1e-4
"""Largest difference of a logit from torch's, as a share of the largest logit."""

_CHECKED = (1, 3)  # images in a batch: the number is free in the file


def export_onnx(trained: TrainedNetwork, path: Path) -> float:
    """Writes a network as ONNX, whole or not at all; its input `images` and output `logits` are those of `Classifier`.

    Returns:
        the largest difference between the logits of onnxruntime and of torch, as a share of the largest logit.

    Raises:
        SettingsError: the packages that this takes are not installed, or the folder cannot be written to.
        ModelError: the network cannot be built, or the file does not compute what it does.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"ONNX needs {error.name}, which is not installed; run: pip install 'bonas[onnx]'"
        ) from None
    if not path.absolute().parent.is_dir():
        raise SettingsError(f"--to `{path}`: folder `{path.parent}` does not exist; make it first")
    check_writable(path.absolute().parent, "--to")
    classifier = trained.classifier()
    drawn = torch.Generator().manual_seed(0)
    batches = [classifier.largest * torch.rand(count, *trained.image, generator=drawn) for count in _CHECKED]
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it says that torchvision, which nothing here needs, is missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                classifier,
                (batches[-1],),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = 0.0
    for images in batches:
        with torch.inference_mode():
            expected = classifier(images).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        difference = max(difference, float(np.abs(found - expected).max() / np.abs(expected).max()))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"ONNX: the exported network differs from torch's by {difference:.1e} of its largest logit, more than "
            f"{TOLERANCE:g}; try other versions of onnxruntime or torch"
        )
    write_whole(path.absolute(), content)
    return difference
