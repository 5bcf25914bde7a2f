"""`python -m flows.command`: the `bonas` command."""

from flows.command.cli import main

main()
