"""What was evaluated, for people, for strategies and on disk."""

from bonas_core.trials.trials import TIME_COLUMNS, Objective, Trial, Trials, TrialState

__all__ = ["TIME_COLUMNS", "Objective", "Trial", "TrialState", "Trials"]
