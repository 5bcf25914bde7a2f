"""The live display of a search in a terminal: a bar, best so far, rate, time left; silent anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bonas_core.search import SearchLog
from bonas_core.settings import Settings
from bonas_core.trials import Trial, TrialState
from flows.running.observer import Observer, observing


class Display(Observer):
    """Shows a search on standard error."""

    def __init__(self, console: Console) -> None:
        """Makes the bar, which is shown once it is entered."""
        self._console = console
        self._log: SearchLog | None = None
        self._begin = time.monotonic()
        self._ended = 0
        self._progress = Progress(
            TextColumn("[bold]{task.fields[search]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("best [green]{task.fields[best]}"),
            TextColumn("[dim]{task.fields[doing]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar = self._progress.add_task(
            "search", total=None, search="starting", rate="", best="-", doing="Prefect, MLflow"
        )

    def started(self, search_id: str, settings: Settings, log: SearchLog) -> None:
        """Shows the name of the search and how many trials it has."""
        self._log = log
        self._begin = time.monotonic()
        done = sum(trial.state.is_finished for trial in log.rows)
        self._progress.update(self._bar, total=settings.budget.trials, completed=done, search=search_id, doing="")
        self._show_best()

    def forecast(self, text: str) -> None:
        """Prints the forecast above the bar."""
        self._console.print(text, markup=False)

    def stage(self, text: str) -> None:
        """Shows what is being done."""
        self._progress.update(self._bar, doing=text)

    def trial_started(self, trial: Trial) -> None:
        """Shows which trial is evaluated."""
        self.stage(f"trial {trial.trial}")

    def epoch(self, trial: Trial, epoch: int, figures: Mapping[str, float]) -> None:
        """Shows the epoch of a trial, and its objective so far."""
        shown = f"{figures['objective']:.2f}" if "objective" in figures else ""
        self.stage(f"trial {trial.trial} epoch {epoch} {shown}")

    def training(self, what: str, epochs: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Moves the bar by the epochs of a final training."""
        shown = f"{figures['objective']:.2f}" if "objective" in figures else "-"
        doing = f"loss {figures['train_loss']:.3f}"
        self._progress.update(self._bar, search=what, total=epochs, completed=epoch, best=shown, doing=doing)

    def trial_finished(self, trial: Trial) -> None:
        """Moves the bar by a trial, and prints what went wrong with it."""
        self._ended += 1
        rate = self._ended / max(time.monotonic() - self._begin, 1e-9)
        shown = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        self._progress.update(self._bar, advance=1, rate=shown)
        if trial.state is not TrialState.DONE:
            self._console.print(f"trial {trial.trial} {trial.state}: {trial.error}", style="yellow", markup=False)
        self._show_best()

    def warning(self, text: str) -> None:
        """Prints a warning above the bar."""
        self._console.print(f"warning: {text}", style="yellow", markup=False)

    def _show_best(self) -> None:
        best = self._log.best if self._log else None
        self._progress.update(self._bar, best="-" if best is None else f"{best.objective:.4f}")


class Plain(Observer):
    """Prints, where there is no terminal, only how long it will take, and what went wrong."""

    def forecast(self, text: str) -> None:
        """Prints the forecast."""
        print(text, file=sys.stderr)

    def trial_finished(self, trial: Trial) -> None:
        """Prints what went wrong with a trial."""
        if trial.state is not TrialState.DONE:
            print(f"trial {trial.trial} {trial.state}: {trial.error}", file=sys.stderr)

    def warning(self, text: str) -> None:
        """Prints a warning."""
        print(f"warning: {text}", file=sys.stderr)


@contextmanager
def displayed() -> Iterator[None]:
    """Shows the searches of this context in the way that suits standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with observing(Plain()):
            yield
        return
    display = Display(console)
    with display._progress, observing(display):
        yield
