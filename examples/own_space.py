"""A search space of one's own: chains of layers, each of one of four kinds.

Architectures are rows of an integer array, so that a whole pool is sampled, mutated and encoded at once."""

from collections.abc import Sequence

import numpy as np

from bonas_core import Architecture, GraphBatch, InputError, Search

KINDS, LAYERS = ("narrow", "wide", "pool", "identity"), 6


class Chains:
    name, encoding_version, positional, size = "chains", 1, True, len(KINDS) ** LAYERS
    vocabulary = ("input", *KINDS, "output")

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(len(KINDS), size=(count, LAYERS), dtype=np.int8)

    def mutate(self, parents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows, children = np.arange(len(parents)), parents.copy()
        children[rows, rng.integers(LAYERS, size=len(rows))] = rng.integers(len(KINDS), size=len(rows))
        return children

    def neighbours(self, genotype: np.ndarray) -> np.ndarray:
        near = np.repeat(genotype[None], LAYERS * (len(KINDS) - 1), axis=0)
        for row, (place, step) in enumerate((p, s) for p in range(LAYERS) for s in range(1, len(KINDS))):
            near[row, place] = (genotype[place] + step) % len(KINDS)
        return near

    def keys(self, genotypes: np.ndarray) -> np.ndarray:
        return genotypes.astype(np.uint64) @ (len(KINDS) ** np.arange(LAYERS, dtype=np.uint64))

    def parse(self, texts: Sequence[str]) -> np.ndarray:
        rows = [[KINDS.index(kind) if kind in KINDS else -1 for kind in text.split("-")] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) != LAYERS or -1 in row:
                raise InputError(f"architecture `{text}` is not {LAYERS} of {', '.join(KINDS)}, joined by dashes")
        return np.array(rows, dtype=np.int8).reshape(-1, LAYERS)

    def format(self, genotypes: np.ndarray) -> list[str]:
        return ["-".join(KINDS[gene] for gene in row) for row in genotypes]

    def architecture(self, genotype: np.ndarray) -> Architecture:
        text = self.format(genotype[None])[0]
        edges = tuple((i, i + 1) for i in range(LAYERS + 1))
        return Architecture(("input", *text.split("-"), "output"), edges, text, text)

    def encode(self, genotypes: np.ndarray) -> GraphBatch:
        labels = np.pad(genotypes + 1, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(KINDS) + 1))).astype(np.int8)
        return GraphBatch(labels, np.eye(LAYERS + 2, k=1, dtype=bool)[None], self.vocabulary)

    def enumerate(self) -> np.ndarray:
        return np.indices((len(KINDS),) * LAYERS, dtype=np.int8).reshape(LAYERS, -1).T


if __name__ == "__main__":
    search = Search(Chains(), lambda chain: chain.text.count("wide-pool") + 0.1 * chain.text.count("narrow"), trials=30)
    print(f"best: {search.run().architecture}")
