"""Samplers: how the candidate pool of a BO step is drawn from the space (paper section 3.3)."""

from bonas_core.methods.samplers.base import LearningSampler, Pool, Sampler
from bonas_core.methods.samplers.evolution import EvolutionSampler
from bonas_core.methods.samplers.exhaustive import ExhaustiveSampler
from bonas_core.methods.samplers.random import RandomSampler

__all__ = ["EvolutionSampler", "ExhaustiveSampler", "LearningSampler", "Pool", "RandomSampler", "Sampler"]
