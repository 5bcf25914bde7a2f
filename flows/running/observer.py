"""Who watches a search from within its process: the live display of the command line, or nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from bonas_core.search import SearchLog
from bonas_core.settings import Settings
from bonas_core.trials import Trial


class Observer:
    """Has a method for each event of a search; those of this one do nothing."""

    def started(self, search_id: str, settings: Settings, log: SearchLog) -> None:
        """The search is open; `log` holds the trials that it has already."""

    def forecast(self, text: str) -> None:
        """How long what is left of the search will take."""

    def stage(self, text: str) -> None:
        """Something without a trial has begun."""

    def trial_started(self, trial: Trial) -> None:
        """A trial is being evaluated."""

    def epoch(self, trial: Trial, epoch: int, figures: Mapping[str, float]) -> None:
        """A training has finished an epoch."""

    def training(self, what: str, epochs: int, epoch: int, figures: Mapping[str, float]) -> None:
        """A final training has finished an epoch, of so many."""

    def trial_finished(self, trial: Trial) -> None:
        """A trial has ended, in any state."""

    def warning(self, text: str) -> None:
        """Something is wrong, and the search goes on."""


_current: ContextVar[Observer] = ContextVar("observer")


def current_observer() -> Observer:
    """The observer of this context."""
    return _current.get(Observer())


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Lets an observer watch the searches of this context."""
    token = _current.set(observer)
    try:
        yield
    finally:
        _current.reset(token)
