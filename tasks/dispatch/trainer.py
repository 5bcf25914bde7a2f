"""A trainer: a process of its own that trains the trials it is given, one after the other, in one slot.

    python -m tasks.dispatch.trainer

reads requests from standard input, a line of JSON each, and answers with events on what was its standard output. It
ends when its standard input does, so it never outlives the process that started it, however that one dies. See
`tasks.dispatch.supervisor` for the other side.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from bonas_core.evaluators.base import Evaluator
from bonas_core.problem import build_evaluator, build_space
from bonas_core.search import evaluate_with_retries, failed
from bonas_core.settings import Settings
from bonas_core.storage import make_folder
from tasks.dispatch.assignment import Assignment
from tasks.home.search_folder import SearchFolder


def main() -> None:
    """Serves requests until standard input ends."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a training prints is no event
    evaluators: dict[str, Evaluator] = {}

    def send(event: Mapping[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    for request in _requests(sys.stdin):
        train(request, evaluators, send)
        send({"event": "ended"})


def train(
    request: Mapping[str, Any], evaluators: dict[str, Evaluator], on_event: Callable[[Mapping[str, Any]], None]
) -> None:
    """Trains one assigned trial and writes its result; does nothing where it has one.

    Args:
        request: which trial, which attempt, and where; as the supervisor writes it.
        evaluators: made before in this process; a new one is added.
        on_event: called with attempts and epochs.
    """
    assignment = Assignment.of(Path(request["search"]), request["trial"])
    settings, trial = assignment.read_order()
    checkpoints = make_folder(SearchFolder(assignment.search).checkpoints / str(trial.trial))

    def attempting(attempt: int) -> None:
        assignment.write_status("training", attempt=attempt, slot=request["slot"])
        on_event({"event": "attempt", "attempt": attempt})

    def progress(epoch: int, figures: Mapping[str, float]) -> None:
        on_event({"event": "epoch", "epoch": epoch, "figures": dict(figures)})

    begin = time.perf_counter()
    try:
        result = evaluate_with_retries(
            _evaluator(settings, evaluators),
            trial,
            settings.dispatch.retries,
            first=request["attempt"],
            timeout_s=settings.dispatch.trial_timeout,
            device=request["device"],
            checkpoints=checkpoints,
            progress=progress,
            attempting=attempting,
        )
    except Exception as error:  # the evaluator cannot be made here: trying again would not help
        result = failed(trial, error, request["attempt"], time.perf_counter() - begin)
    assignment.write_result(result)


def _evaluator(settings: Settings, known: dict[str, Evaluator]) -> Evaluator:
    """Builds the evaluator of a search, kept for its next trial."""
    tree = settings.tree()
    key = json.dumps([tree["space"], tree["evaluator"]], sort_keys=True)
    if key not in known:
        known[key] = build_evaluator(settings, build_space(settings.space))
    return known[key]


def _requests(stream: IO[str]) -> Iterator[dict[str, Any]]:
    """Yields requests as they come; the process exits at once when the stream ends, even during a training."""
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in stream:
            waiting.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


if __name__ == "__main__":
    main()
