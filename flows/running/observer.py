"""Observers that watch a search from within its process, such as the live display of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from bonas_core.search import SearchLog
from bonas_core.settings import Settings
from bonas_core.trials import Trial


class Observer:
    """An observer has a method for each event of a search; those of this one do nothing."""

    def started(self, search_id: str, settings: Settings, log: SearchLog) -> None:
        """Called when the search is open; `log` holds the trials that it has already."""

    def forecast(self, text: str) -> None:
        """Called with how long what is left of the search will take."""

    def stage(self, text: str) -> None:
        """Called when something without a trial begins."""

    def trial_started(self, trial: Trial) -> None:
        """Called when the evaluation of a trial begins."""

    def epoch(self, trial: Trial, epoch: int, figures: Mapping[str, float]) -> None:
        """Called when a training has finished an epoch."""

    def training(self, what: str, epochs: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Called when a final training has finished an epoch, of so many."""

    def trial_finished(self, trial: Trial) -> None:
        """Called when a trial has ended, in any state."""

    def warning(self, text: str) -> None:
        """Called when something is wrong and the search goes on."""


_current: ContextVar[Observer] = ContextVar("observer")


def current_observer() -> Observer:
    """Returns the observer of this context."""
    return _current.get(Observer())


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Lets an observer watch the searches of this context."""
    token = _current.set(observer)
    try:
        yield
    finally:
        _current.reset(token)
