"""Baselines: other strategies on the same ask / tell interface."""

from bonas_core.baselines.local_search import LocalSearch
from bonas_core.baselines.random_search import RandomSearch
from bonas_core.baselines.regularised_evolution import RegularisedEvolution

__all__ = ["LocalSearch", "RandomSearch", "RegularisedEvolution"]
