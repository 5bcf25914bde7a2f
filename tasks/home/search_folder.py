"""Folder of a search in a store.

<store>/<id>/search.json            settings, seed, fingerprint, versions and more: written once
             state.json             running, finished, paused or failed; the budget last worked to

What else is in it stands in `docs/architecture.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, StrictInt, StringConstraints, TypeAdapter, with_config
from typing_extensions import TypedDict

from bonas_core.errors import StoreError
from bonas_core.storage import Location
from bonas_core.storage.tensors import SUFFIX
from tasks.home.run_folder import TRAINING_FILE, Budget, RunFolder, run_path, run_paths, validated

SEARCH_FILE = "search.json"
REPORT_NAME = "report.html"
DISPATCH_FOLDER = "dispatch"


@with_config(ConfigDict(extra="forbid"))
class StoredObjective(TypedDict):
    """Arguments of an `Objective`."""

    name: str
    unit: str
    direction: str


class _Method(TypedDict):
    name: str


class _Dispatch(TypedDict):
    slots: StrictInt


class _UsedSettings(TypedDict):
    """Settings that are shown or compared without parsing all of them."""

    space: str
    method: _Method
    budget: Budget
    dispatch: _Dispatch


_USED_SETTINGS = TypeAdapter(_UsedSettings)


def _with_used(settings: dict[str, Any]) -> dict[str, Any]:
    validated(_USED_SETTINGS, settings)
    return settings


class Manifest(TypedDict):
    """Facts that were fixed when a search was started."""

    uid: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    """Name of the search in MLflow, which is put into queries."""
    created_at: str
    space: str
    seed: int
    objective: StoredObjective
    fingerprint: str
    """Fingerprint of the evaluator's data or recipe."""
    settings: Annotated[dict[str, Any], AfterValidator(_with_used)]
    versions: dict[str, str]
    mlflow: dict[str, str]
    """Ids of the search in MLflow; empty if that could not be reached."""


_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True)
class SearchFolder(RunFolder):
    """Folder of one search, on the disk or in S3."""

    kind: ClassVar[str] = "search"
    file: ClassVar[str] = SEARCH_FILE

    @property
    def trials(self) -> Location:
        """Parquet parts of the history."""
        return self.path / "trials"

    @property
    def checkpoints(self) -> Location:
        """Training state, one folder a trial."""
        return self.path / "checkpoints"

    @property
    def dispatch(self) -> Location:
        """Trials that were given to trainers in other processes, one folder a trial."""
        return self.path / DISPATCH_FOLDER

    @property
    def predictors(self) -> Location:
        """Fitted predictors, one file a version."""
        return self.path / "predictors"

    @property
    def samplers(self) -> Location:
        """States of a sampler that learns, one file each."""
        return self.path / "samplers"

    @property
    def warm_start(self) -> Location:
        """Predictor that trainings start from, where there is one."""
        return self.path / f"warm_start{SUFFIX}"

    @property
    def report(self) -> Location:
        """Figures and the HTML report."""
        return self.path / "report"

    def read(self) -> Manifest:
        """Reads what was fixed when the search was started.

        Raises:
            StoreError: there is no such search, or the file is damaged.
        """
        if not self.exists():
            if (self.path / TRAINING_FILE).is_file():
                raise StoreError(f"`{self.id}` is a training, not a search; see it with `bonas show {self.id}`")
            known = ", ".join(folder.id for folder in searches(self.path.parent)) or "none"
            raise StoreError(f"search `{self.id}` is not in `{self.path.parent}`; searches there: {known}")
        return self.read_start(_MANIFEST)

    def write(self, manifest: Manifest) -> None:
        """Writes what the search was started with."""
        self.write_start(manifest)


def search_folder(search_id: str, store: str | None = None) -> SearchFolder:
    """Returns the folder of a search by its id, in a store or the default one; it need not exist.

    Raises:
        StoreError: the id or the store is not acceptable.
    """
    return SearchFolder(run_path(SearchFolder.kind, search_id, store))


def searches(store: Location) -> list[SearchFolder]:
    """Lists the searches of a store, by id."""
    return [folder for path in run_paths(store) if (folder := SearchFolder(path)).exists()]
