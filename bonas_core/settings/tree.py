"""All settings of a search, one group a concern: where, when and with what it runs; methods bring their own groups.

A recipe fills in what a tree leaves open; the tree that results is stored with the search, so that a later change of a
recipe cannot change a search that has begun.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bonas_core.settings.evaluator import EvaluatorSettings, TableSettings
from bonas_core.settings.group import Group, offer_names
from bonas_core.settings.method import Method
from bonas_core.settings.predictor import Predictor


class BudgetSettings(Group):
    """When a search ends: at whichever comes first."""

    trials: int = Field(200, ge=1, description="trials in all, the initial ones counted")
    hours: float | None = Field(None, gt=0, description="hours of evaluating and choosing")
    stop_at: Annotated[float, Field(allow_inf_nan=False)] | Literal["optimum"] | None = Field(
        None,
        description="objective that is enough; `optimum`: the best of a closed table, which the method never knows",
    )


class DispatchSettings(Group):
    """Where and how trials are evaluated."""

    backend: Literal["inline", "thread", "process", "dask", "ray", "work-pool"] = Field(
        "inline",
        description="inline: one after the other; thread: threads of the search's own process; process: a process for "
        "each slot; dask, ray: workers of a cluster; work-pool: each trial a run of the `train-trial` deployment",
    )
    slots: int = Field(1, ge=1, le=1024, description="trials evaluated at the same time")
    mode: Literal["synchronous", "asynchronous"] = Field(
        "synchronous",
        description="synchronous: a round's trials all end before the next are chosen; asynchronous: a trial is chosen "
        "as soon as a slot is free, with the others in flight",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU for each trial where the machine has GPUs and the evaluator is no table"
    )
    trial_timeout: float | None = Field(
        None, gt=0, description="seconds that an attempt at a trial may take; threads are stopped after an epoch only"
    )
    retries: int = Field(
        2, ge=0, le=100, description="further attempts after an error, before a trial counts as failed"
    )
    address: str | None = Field(
        None, description="of a Dask scheduler or Ray cluster; by default one is started on this machine"
    )
    deployment: str = Field("train-trial/train-trial", description="of the work-pool back end, as FLOW/DEPLOYMENT")


class TrackingSettings(Group):
    """Where MLflow keeps predictors."""

    uri: str | None = Field(None, description="tracking server; by default SQLite beside the store")
    experiment: str | None = Field(None, description="by default bonas- and the space")


def _left_out() -> Any:
    """A group that a tree leaves out; its own validation fills it."""
    return None


class Settings(Group):
    """All settings of a search."""

    space: str = Field(
        "nasbench201", description="registered name or module:object", json_schema_extra=offer_names("space")
    )
    evaluator: EvaluatorSettings = Field(default_factory=lambda: TableSettings())
    method: Method = Field(default_factory=_left_out, validate_default=True)
    predictor: Predictor = Field(default_factory=_left_out, validate_default=True)
    budget: BudgetSettings = Field(default_factory=lambda: BudgetSettings())
    dispatch: DispatchSettings = Field(default_factory=lambda: DispatchSettings())
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of everything random; the same seed makes the same search")
    store: str | None = Field(
        None, description="folder of searches or s3://bucket/prefix; by default ./.bonas/searches"
    )
    tracking: TrackingSettings = Field(default_factory=lambda: TrackingSettings())

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.budget.stop_at == "optimum" and not isinstance(self.evaluator, TableSettings):
            raise ValueError("budget.stop_at: `optimum` is known for tables only; give a number")
        return self

    def tree(self) -> dict[str, Any]:
        """The settings as a plain tree of YAML and JSON values."""
        return self.model_dump(mode="json")
