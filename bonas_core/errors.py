"""The errors of the project: each message names the object, the rule it broke and the remedy."""

from __future__ import annotations


class BonasError(Exception):
    """Base of every error that the project raises on purpose; its text is one line for a person."""


class InputError(BonasError):
    """Something that a person supplied cannot be used; the command line exits with code 2."""


class SettingsError(InputError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class InvalidArchitectureError(InputError):
    """A text or graph is not an architecture of the search space it is offered to."""


class TableError(InputError):
    """A benchmark table is unreadable, incomplete or contradicts itself."""


class StoreError(InputError):
    """A store or search folder cannot be read, written, or does not hold what it should."""


class SearchLockedError(StoreError):
    """Another process is writing to this search."""


class ModelError(InputError):
    """A registered predictor cannot be loaded, or belongs to another space or encoding."""


class SearchError(BonasError):
    """A search could not go on; the command line exits with code 1."""


class TrainingDivergedError(BonasError):
    """A training left the range of numbers (NaN or infinite loss); the trial ends DIVERGED."""


class TrainingProcessError(BonasError):
    """A process of a training in several processes died."""


class TrialTimeoutError(BonasError):
    """An attempt at a trial took longer than it may."""


class TrialStoppedError(BonasError):
    """A trial was given up because its search is stopping; it is evaluated when the search goes on."""


def first_line(error: BaseException) -> str:
    r"""The first line of an error's text, or the name of its class where it has none: a reason to put into a message.

    Example:
        >>> first_line(ValueError("no table\nsecond line")), first_line(ValueError())
        ('no table', 'ValueError')
    """
    return str(error).splitlines()[0] if str(error) else type(error).__name__
