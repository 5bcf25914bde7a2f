"""What the settings of every method have in common; each method declares its own beside its strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from bonas_core.settings.group import Group, Named, offer_names

MutationRule = Annotated[
    str | None,
    Field(description="rule of mutation: rewire, add-remove or flip in nasbench101; by default the space's first"),
]
"""Of methods that mutate."""


class MethodSettings(Group):
    """How architectures are chosen."""

    name: str
    batch: int = Field(1, ge=1, le=10_000, description="trials chosen at once; 1 needs the fewest")

    def predictor_defaults(self, kind: str) -> Mapping[str, Any] | None:
        """What the method fills into `predictor` for a kind of predictor; None where it has no predictor."""
        return None


class OwnMethodSettings(MethodSettings):
    """A method of your own: `name` is module:object, `options` are passed to it."""

    name: str = Field(description="module:object", json_schema_extra=offer_names("method"))
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the method")


METHOD = Named("method", "name", "bonas", OwnMethodSettings)
Method = Annotated[MethodSettings, METHOD]
"""The settings of a method, by its name."""
