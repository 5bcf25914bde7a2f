"""A search: ask a strategy, tell it the outcome, until the budget is spent."""

from bonas_core.search.search import (
    SearchLog,
    Step,
    StopRule,
    evaluate,
    evaluate_with_retries,
    failed,
    is_out_of_memory,
    next_step,
    run,
    timed_out,
    training_folder,
)

__all__ = [
    "SearchLog",
    "Step",
    "StopRule",
    "evaluate",
    "evaluate_with_retries",
    "failed",
    "is_out_of_memory",
    "next_step",
    "run",
    "timed_out",
    "training_folder",
]
