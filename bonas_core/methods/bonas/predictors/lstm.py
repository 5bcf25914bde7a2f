"""The recurrent network that the paper compares with (section 4.1): an LSTM that reads a graph as a sequence.

The sequence holds the adjacency matrix bit by bit, row by row, then the label of each vertex; padding is left out, so
that it never matters. The embedding is the hidden state after the last token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bonas_core.methods.bonas.predictors.base import PredictorWeights
from bonas_core.methods.bonas.predictors.fitting import Network, NetworkPredictor
from bonas_core.spaces.encoding import GraphBatch

_BITS = 2  # the words of the adjacency matrix; those of labels follow


@dataclass(frozen=True)
class LSTM(NetworkPredictor["_Inputs"]):
    """A recurrent predictor on graphs as sequences; the defaults are the paper's.

    Example:
        >>> import numpy as np
        >>> from bonas_core.spaces.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> cells = space.encode(space.enumerate()[:20])
        >>> lstm = LSTM(width=8, epochs=2)
        >>> lstm.embed(lstm.fit(cells, np.linspace(-1, 1, 20), np.ones(20), seed=0), cells).shape
        (20, 8)
    """

    width: int = 100
    """Units of the hidden state, and numbers in the embedding of a word."""

    def _inputs(self, graphs: GraphBatch, weights: PredictorWeights | None = None) -> _Inputs:
        tokens, lengths = _sequences(graphs)
        agree = (tokens == tokens[0]).all(axis=0)
        prefix = min(len(agree) if agree.all() else int(agree.argmin()), int(lengths.min()))
        return _Inputs(torch.from_numpy(tokens), torch.from_numpy(lengths), _BITS + len(graphs.vocabulary), prefix)

    def _network(self, inputs: _Inputs, generator: torch.Generator | None) -> _Network:
        return _Network(self.ensemble, inputs.words, self.width, generator)


@dataclass(frozen=True)
class _Inputs:
    """Sequences of n graphs."""

    tokens: Tensor
    """(n, T) words; after the end of a sequence 0."""
    lengths: Tensor
    """(n,) tokens of each sequence."""
    words: int
    """Size of the vocabulary."""
    prefix: int
    """Tokens that all sequences begin with: read once for all. Where graphs share their edges that is most of them."""

    def __getitem__(self, rows: Tensor) -> _Inputs:
        return _Inputs(self.tokens[rows], self.lengths[rows], self.words, self.prefix)


def _sequences(graphs: GraphBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Words (n, T) of every graph, padding left out, and how many there are (n,)."""
    n, V = graphs.labels.shape
    mask = graphs.mask
    bits = np.broadcast_to(graphs.adjacency, (n, V, V)).reshape(n, V * V)
    real = np.concatenate([(mask[:, :, None] & mask[:, None, :]).reshape(n, V * V), mask], axis=1)
    words = np.concatenate([bits, _BITS + graphs.labels.astype(np.int64)], axis=1)
    lengths = real.sum(axis=1)
    order = np.argsort(~real, axis=1, kind="stable")  # what is real moves to the front, in its order
    tokens = np.take_along_axis(np.where(real, words, 0), order, axis=1)[:, : lengths.max()]
    return tokens, lengths


class _Network(Network[_Inputs]):
    """E recurrent networks side by side: words (E, W, H), gates (E, H, 4 H) for input, forget, cell and output."""

    def __init__(self, ensemble: int, words: int, width: int, generator: torch.Generator | None) -> None:
        super().__init__()
        E, H = ensemble, width
        self.word = nn.Parameter(torch.empty(E, words, H))
        self.from_word = nn.Parameter(torch.empty(E, H, 4 * H))
        self.from_hidden = nn.Parameter(torch.empty(E, H, 4 * H))
        self.bias = nn.Parameter(torch.zeros(E, 1, 4 * H))
        self.head = nn.Parameter(torch.empty(E, H, 1))
        self.head_bias = nn.Parameter(torch.zeros(E, 1))
        if generator is not None:
            with torch.no_grad():
                self.word.normal_(generator=generator)
                for parameter in (self.from_word, self.from_hidden, self.bias, self.head):
                    parameter.uniform_(-1 / math.sqrt(H), 1 / math.sqrt(H), generator=generator)

    def embed(self, inputs: _Inputs) -> Tensor:
        E, W, H = self.word.shape
        B, T = inputs.tokens.shape
        gates = torch.baddbmm(self.bias, self.word, self.from_word)  # (E, W, 4 H) what each word adds
        h = c = self.word.new_zeros(E, 1, H)
        for word in inputs.tokens[0, : inputs.prefix].tolist():
            h, c = self._step(gates[:, word : word + 1], h, c)
        h, c = h.expand(E, B, H), c.expand(E, B, H)
        states = [h]
        if inputs.prefix < T:
            rest = inputs.tokens[:, inputs.prefix :].T.reshape(-1)  # token by token, (T B,)
            # the gradient of this product is much quicker than that of a look-up
            one_hot = (rest[:, None] == torch.arange(W)).float()
            added = (one_hot @ gates).view(E, T - inputs.prefix, B, 4 * H)
            for step in added.unbind(dim=1):
                h, c = self._step(step, h, c)
                states.append(h)
        last = inputs.lengths - inputs.prefix
        return torch.stack(states)[last, :, torch.arange(B)].transpose(0, 1) if bool((last < last.max()).any()) else h

    def _step(self, added: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One token: (E, B, 4 H) of the word and states (E, B, H) to new states."""
        i, f, g, o = torch.baddbmm(added, h, self.from_hidden).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def score(self, embeddings: Tensor) -> Tensor:
        return (embeddings @ self.head).squeeze(-1) + self.head_bias
