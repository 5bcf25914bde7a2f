"""Optuna's samplers as methods: what a user would pick instead (Akiba et al. 2019). Needs the extra `optuna`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from bonas_core.errors import SettingsError
from bonas_core.methods.base import Strategy
from bonas_core.settings.method import MethodSettings
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import SearchSpace
from bonas_core.trials import Objective


class TPESettings(MethodSettings):
    """Optuna's tree-structured Parzen estimator."""

    name: Literal["optuna-tpe"] = "optuna-tpe"
    initial: int = Field(5, ge=2, le=100_000, description="random trials that start the search")


class GPSettings(MethodSettings):
    """Optuna's Gaussian process."""

    name: Literal["optuna-gp"] = "optuna-gp"
    initial: int = Field(5, ge=2, le=100_000, description="random trials that start the search")


class TPE:
    """Optuna's tree-structured Parzen estimator."""

    Settings: ClassVar = TPESettings

    @classmethod
    def from_settings(
        cls, settings: TPESettings, space: SearchSpace, objective: Objective, predictor: PredictorSettings | None = None
    ) -> Strategy:
        """Makes the search of a space that has decisions."""
        return _strategy("tpe", settings, space)


class GP:
    """Optuna's Gaussian process."""

    Settings: ClassVar = GPSettings

    @classmethod
    def from_settings(
        cls, settings: GPSettings, space: SearchSpace, objective: Objective, predictor: PredictorSettings | None = None
    ) -> Strategy:
        """Makes the search of a space that has decisions."""
        return _strategy("gp", settings, space)


def _strategy(sampler: str, settings: TPESettings | GPSettings, space: SearchSpace) -> Strategy:
    """A strategy around one of Optuna's samplers.

    Raises:
        SettingsError: Optuna is not installed, or the space has no decisions.
    """
    try:
        from bonas_core.methods.optuna import strategy
    except ImportError:
        raise SettingsError(
            f"method `{settings.name}` needs Optuna, which is not installed; run: pip install 'bonas[optuna]'"
        ) from None
    return strategy.OptunaStrategy(space, settings.name, getattr(strategy, sampler), settings.initial)
