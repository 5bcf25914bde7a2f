"""A search: ask a strategy, tell it the outcome, until the budget is spent.

`SearchLog` is the state, and all of it: the trials so far. `next_step` says what is to be done about it. The plain
driver `run` does that in a loop; an orchestrator does the same steps as tasks; `Search` leaves the loop to its user.
"""

from bonas_core.search.ask_tell import Asked, Search
from bonas_core.search.driver import drive, run
from bonas_core.search.evaluation import (
    ended,
    evaluate,
    evaluate_with_retries,
    failed,
    is_out_of_memory,
    timed_out,
    training_folder,
)
from bonas_core.search.log import SearchLog
from bonas_core.search.steps import Step, StopRule, next_step

__all__ = [
    "Asked",
    "Search",
    "SearchLog",
    "Step",
    "StopRule",
    "drive",
    "ended",
    "evaluate",
    "evaluate_with_retries",
    "failed",
    "is_out_of_memory",
    "next_step",
    "run",
    "timed_out",
    "training_folder",
]
