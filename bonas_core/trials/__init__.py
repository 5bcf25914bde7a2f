"""What was evaluated, for people, for strategies and on disk."""

from bonas_core.trials.columns import Trials
from bonas_core.trials.objective import Objective
from bonas_core.trials.trial import TIME_COLUMNS, Trial, TrialState

__all__ = ["TIME_COLUMNS", "Objective", "Trial", "TrialState", "Trials"]
