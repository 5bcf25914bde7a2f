"""The `bonas` command, a module for each group of commands."""
