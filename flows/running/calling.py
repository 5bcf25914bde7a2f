"""Call of a flow from the command line: it outlasts Prefect's server, and errors become one line.

Prefect is imported when a flow is called.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from bonas_core.errors import BonasError, SearchError, first_line

abandoned: list[str] = []
"""Reasons why Prefect's server does not know how a search ended."""


def call_flow(flow: Callable[[], object], what: str, state: Callable[[], str], again: str) -> None:
    """Calls a flow, waiting for Prefect's server where that is away.

    Args:
        flow: calls it.
        what: names what it works on.
        state: where that stands.
        again: what goes on with it.
    """
    from bonas_core.storage import make_local_folder
    from tasks.home.environment import home

    make_local_folder(home())  # Prefect makes its own folder in it, but no parents
    from tasks.home.outage import OUTAGES, await_start, is_outage

    def warn(text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)

    try:
        for left in range(OUTAGES, -1, -1):
            await_start(warn)
            try:
                flow()
                return
            except Exception as error:
                if isinstance(error, BonasError) or not is_outage(error):
                    raise
                if state() in ("finished", "paused"):
                    warn(f"Prefect's server is away; it does not know how {what} ended")
                    abandoned.append(str(error))
                    return
                if not left:
                    raise
                warn(f"Prefect's server went away; {what} goes on when it is back")
    except (BonasError, KeyboardInterrupt):
        raise
    except Exception as error:
        logging.getLogger("bonas").debug("%s failed", what, exc_info=True)
        reason = first_line(error)
        raise SearchError(
            f"{what} stopped: {type(error).__name__}: {reason}; nothing finished is lost, go on with {again}"
        ) from error
