"""Commands `bonas up` and `bonas deploy`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.command.options import prepare_services


def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Of Prefect's server and UI.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65_535, help="Of MLflow's server and UI.")] = 5000,
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Trials at a time on the work pool.")] = 2,
) -> None:
    """Run Prefect's server, its workers and MLflow's UI on this machine, until Ctrl-C."""
    import time

    prepare_services()
    from flows.command.services import addresses, running

    with running(port, mlflow_port, slots) as services:
        print("\n".join(addresses(port, mlflow_port)), flush=True)
        while True:
            for service in services:
                restarted = service.keep_alive()
                if restarted:
                    print(f"warning: {restarted}", file=sys.stderr)
            time.sleep(1)


def deploy(
    slots: Annotated[int | None, typer.Option(min=1, max=1024, help="Trials at a time on the work pool.")] = None,
    searches: Annotated[int | None, typer.Option(min=1, max=1024, help="Flows at a time on the work pool.")] = None,
    worker_type: Annotated[str, typer.Option(help="Of new work pools: process, docker, kubernetes, ...")] = "process",
) -> None:
    """Make work pools, limits and deployments on the Prefect server that PREFECT_API_URL names."""
    prepare_services()
    from flows.command.services import deploy as deployed

    print("\n".join(deployed(slots, searches, worker_type)))
