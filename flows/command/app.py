"""The `bonas` command: what commands there are, and how they end.

Bad input ends with one line on standard error and exit code 2; a search that fails with 1; an interrupted one with
130 and the line that resumes it. Results go to standard output, everything else to standard error. What a command
needs is imported when it runs, so that `bonas --help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

from bonas_core.errors import BonasError, InputError
from flows.command import benchmarking, networks, preparing, ranking, searching, serving, storing
from flows.running.calling import abandoned
from flows.running.interruption import install

app = typer.Typer(
    name="bonas",
    help="Bayesian-optimised neural architecture search, run as a data pipeline.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Benchmark tables and image sets: prepare and check.", no_args_is_help=True)
store_app = typer.Typer(help="Stores of searches and trainings: check, compact and export.", no_args_is_help=True)

COMMANDS: dict[typer.Typer, dict[str, Callable[..., None]]] = {
    app: {
        "search": searching.search,
        "resume": searching.resume,
        "train": networks.train,
        "export": networks.export,
        "list": searching.list_searches,
        "show": searching.show,
        "report": searching.report,
        "rank": ranking.rank,
        "presets": searching.presets,
        "cost": networks.cost,
        "benchmark": benchmarking.benchmark,
        "up": serving.up,
        "deploy": serving.deploy,
    },
    data_app: {"prepare": preparing.prepare, "check": preparing.check},
    store_app: {"check": storing.check, "compact": storing.compact, "export": storing.export},
}
"""Commands as `bonas --help` lists them, in this order."""

for group, commands in COMMANDS.items():
    for name, command in commands.items():
        group.command(name)(command)
app.add_typer(data_app, name="data")
app.add_typer(store_app, name="store")


def main() -> NoReturn:
    """Runs the command line and exits."""
    install()
    code = exit_code(sys.argv[1:])
    if abandoned:  # Prefect would try for minutes to deliver what it has to say
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


# typer's own errors: the base class of its public BadParameter, wherever the installed version keeps it
_CommandLineError: Any = typer.BadParameter.__mro__[2]


def exit_code(arguments: list[str]) -> int:
    """Runs the command line with these arguments, and returns the exit code that its end deserves."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # `module:object` may name a module that stands here; last, to shadow nothing
    try:
        result = typer.main.get_command(app).main(args=arguments, prog_name="bonas", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except InputError as error:
        return _complain(error, 2)
    except BonasError as error:
        return _complain(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left; nothing more to say
        return 0
    except _CommandLineError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2
        return _complain(f"{error.format_message().rstrip('.')}; see `bonas --help`", 2)


def _complain(error: object, code: int) -> int:
    print("bonas: " + " ".join(str(error).split("\n")), file=sys.stderr)
    return code
