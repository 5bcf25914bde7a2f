"""What searches are tested with: a toy problem that needs no table, and things that go wrong on purpose."""

from bonas_core.testing.faults import Crash, FaultyDisk, Kind, damage, faulty_disk
from bonas_core.testing.toy import ToyEvaluator, ToyTraining, timeless, toy_problem

__all__ = [
    "Crash",
    "FaultyDisk",
    "Kind",
    "ToyEvaluator",
    "ToyTraining",
    "damage",
    "faulty_disk",
    "timeless",
    "toy_problem",
]
