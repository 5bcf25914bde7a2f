"""Needs of the back ends of `dispatch`, looked at before a search is opened, without importing any of it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bonas_core.errors import SettingsError
from bonas_core.settings import DispatchSettings
from bonas_core.storage import Location

CLUSTERS = {"dask": ("prefect_dask", "DaskTaskRunner"), "ray": ("prefect_ray", "RayTaskRunner")}
"""Module and class of the task runner, for the back ends that are extras."""
_IN_THIS_PROCESS = ("inline", "thread")


def check_backend(settings: DispatchSettings, folder: Location) -> None:
    """Checks that trials of the search in a folder can be evaluated as the settings say.

    Raises:
        SettingsError: the back end's extra is not installed, or other processes could not reach the folder.
    """
    name = settings.backend
    if name in CLUSTERS and find_spec(CLUSTERS[name][0]) is None:
        raise SettingsError(
            f"dispatch.backend: {name} needs an extra that is not installed; run `pip install 'bonas[{name}]'`, or use "
            "process"
        )
    if name not in _IN_THIS_PROCESS and not isinstance(folder, Path):
        raise SettingsError(
            f"dispatch.backend: {name} hands trials to other processes through files with locks, which `{folder}` "
            "cannot have; use a folder that the machines share, or backend inline or thread"
        )
