import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bonas_core.methods.bonas.predictors.adam import Adam


@pytest.mark.parametrize("fused", [False, True])
def test_every_step_is_that_of_torch_to_the_last_bit(fused: bool):
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for shape in ((3, 4, 5), (7,), (2, 2))]
    ours = [tensor.clone().requires_grad_() for tensor in start]
    theirs = [tensor.clone().requires_grad_() for tensor in start]
    optimiser = Adam(ours, 1e-2, fused)
    reference = torch.optim.Adam(theirs, lr=1e-2, foreach=not fused, fused=fused)
    for step in range(20):
        for parameters, adam in ((ours, optimiser), (theirs, reference)):
            adam.zero_grad()
            used = parameters[: 2 if step % 3 else 3]  # the last one has no gradient in most steps
            sum(((parameter - 1) ** 2).sum() for parameter in used).backward()
            adam.step()
        for own, other in zip(ours, theirs, strict=True):
            assert torch.equal(own, other)


def test_a_predictor_is_trained_without_the_compiler():
    program = (
        "import sys, numpy as np\n"
        "from bonas_core.methods.bonas.predictors.gcn import GCN\n"
        "from bonas_core.spaces.nasbench201 import NASBench201\n"
        "space = NASBench201()\n"
        "graphs = space.encode(space.sample(9, np.random.default_rng(0)))\n"
        "GCN(layers=2, width=4, epochs=2).fit(graphs, np.arange(9.0), np.ones(9), 0)\n"
        "assert 'torch' in sys.modules and 'torch._dynamo' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[5])}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
