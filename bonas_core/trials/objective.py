"""How what an evaluator finds becomes a score that strategies see."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """How an evaluator's figure becomes a score: larger is better, and a fraction where the unit says so."""

    name: str
    unit: str = "fraction"
    direction: str = "maximise"

    @property
    def is_fraction(self) -> bool:
        """Whether scores lie in [0, 1]."""
        return self.unit in ("percent", "fraction") and self.direction == "maximise"

    def score(self, objective: float) -> float:
        """Score of an objective in the evaluator's unit."""
        return objective * self._factor

    def objective(self, score: float) -> float:
        """Objective, in the evaluator's unit, of a score."""
        return score / self._factor

    def better(self, objective: float, other: float) -> bool:
        """Whether the first is the better objective."""
        return self.score(objective) > self.score(other)

    @property
    def _factor(self) -> float:
        return (0.01 if self.unit == "percent" else 1.0) * (1 if self.direction == "maximise" else -1)
