"""Entry point of `python -m flows.command`: the `bonas` command."""

from flows.command.app import main

main()
