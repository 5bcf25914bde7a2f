"""Search spaces: what can be sampled, changed, compared, printed and encoded."""

from bonas_core.spaces.base import Genotypes, Keys, SearchSpace, distinct

__all__ = ["Genotypes", "Keys", "SearchSpace", "distinct"]
