"""Samplers: how the candidate pool of a BO step is drawn from the space (paper section 3.3)."""

from bonas_core.samplers.base import LearningSampler, Pool, Sampler
from bonas_core.samplers.evolution import EvolutionSampler
from bonas_core.samplers.exhaustive import ExhaustiveSampler
from bonas_core.samplers.random import RandomSampler

__all__ = ["EvolutionSampler", "ExhaustiveSampler", "LearningSampler", "Pool", "RandomSampler", "Sampler"]
