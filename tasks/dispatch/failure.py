"""How a trial that FAILED is told to Prefect: as an error, which carries the trial that is to be recorded."""

from __future__ import annotations

from bonas_core.trials import Trial, TrialState


class TrialFailedError(Exception):
    """A trial that FAILED: raised so that Prefect shows its run as failed; `trial` is what is to be recorded."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.trial = trial

    def __str__(self) -> str:
        """The trial, how it ended and why."""
        return f"trial {self.trial.trial} {self.trial.state}: {self.trial.error}"


def unless_failed(trial: Trial) -> Trial:
    """The trial, or TrialFailedError if it FAILED."""
    if trial.state is TrialState.FAILED:
        raise TrialFailedError(trial)
    return trial
