"""A predictor of one's own: any torch module over a torch-geometric `Batch` learns the embedding.

It is trained by the project's own loop (ensembles, losses, early stopping, warm starts), and Bayesian linear regression
is fitted to what it returns.
"""

import torch
from torch_geometric.data import Batch
from torch_geometric.nn import GatedGraphConv, global_max_pool, global_mean_pool

from bonas_core import Search


class Gated(torch.nn.Module):
    """A gated graph network; the embedding is the mean and the maximum over the vertices."""

    def __init__(self, in_channels: int, width: int, layers: int, aggr: str = "add") -> None:
        super().__init__()
        self.enter = torch.nn.Linear(in_channels, width)
        self.convolutions = GatedGraphConv(width, layers, aggr=aggr)

    def forward(self, batch: Batch) -> torch.Tensor:
        """(B, 2 width) embeddings of B graphs, whose one-hot labels are `batch.x`."""
        h = self.convolutions(self.enter(batch.x), batch.edge_index).relu()
        return torch.cat([global_mean_pool(h, batch.batch), global_max_pool(h, batch.batch)], dim=1)


if __name__ == "__main__":
    search = Search(
        "nasbench201",
        lambda cell: cell.operations.count("nor_conv_3x3"),
        unit="count",
        trials=15,
        method={"sampler": "random", "pool": 200},
        predictor={
            "kind": "pyg", "model": "own_predictor:Gated", "options": {"aggr": "mean"}, "epochs": 30, "ensemble": 1
        },
    )  # fmt: skip
    print(f"best: {search.run().architecture}")
