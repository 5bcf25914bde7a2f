"""What the settings of every predictor have in common; each kind of predictor declares what else it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from bonas_core.registry import resolve
from bonas_core.settings.group import Group, Named, offer_names


class PredictorSettings(Group):
    """What embeds architectures, how it is trained, and how scores are regressed on the embeddings."""

    kind: str
    loss: Literal["exp", "log", "linear", "mse"] = Field("mse", description="weight of the squared errors")
    epochs: int = Field(100, ge=0, description="epochs per retraining")
    learning_rate: float = Field(1e-2, gt=0, description="of Adam")
    batch_size: int = Field(128, ge=1, description="trials per gradient step")
    ensemble: int = Field(4, ge=1, le=64, description="networks trained together")
    targets: Literal["rank", "standardise", "logit"] = Field("rank", description="transform of the scores to learn")
    intercept: Literal["centre", "constant"] = Field("centre", description="of the regression")
    min_noise: float = Field(
        0.1, gt=0, le=1, description="least noise of the regression, as a share of the targets' variance"
    )
    warm_start: str | None = Field(
        None,
        description="predictor whose weights every training starts from: models:/NAME@ALIAS, models:/NAME/VERSION, or "
        "a file",
    )

    shape: ClassVar[tuple[str, ...]] = ("kind", "ensemble")
    """Settings that decide which weights there are; a warm start must have the same."""

    @property
    def code(self) -> str | None:
        """The `module:object` among the settings, which a file from elsewhere must not have loaded; None without."""
        return self.kind if ":" in self.kind else None

    def build(self, space: Any) -> Any:
        """Makes the predictor for a search space.

        Raises:
            SettingsError: it cannot work on the space.
        """
        raise TypeError(f"predictor `{self.kind}` does not say how it is made; give its settings a method `build`")


class OwnPredictorSettings(PredictorSettings):
    """A predictor of your own: `kind` is module:object, which is called with the space and these settings."""

    kind: str = Field(description="module:object", json_schema_extra=offer_names("predictor"))
    options: dict[str, Any] = Field(default_factory=dict, description="for the predictor's own use")

    def build(self, space: Any) -> Any:
        """Calls the object that `kind` names."""
        return resolve("predictor", self.kind)(space, self)


def _filled(tree: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any] | None:
    """The tree with what the method fills in; None where the method has no predictor."""
    method = before.get("method")
    if method is None:  # its own fault is told first
        return None
    defaults = method.predictor_defaults(str(tree["kind"]))
    if defaults is None:
        if len(tree) > 1 or tree["kind"] != PREDICTOR.default_name:
            raise ValueError(f"method `{method.name}` has no predictor; leave this group out")
        return None
    return {**defaults, **tree}


PREDICTOR = Named("predictor", "kind", "gcn", OwnPredictorSettings, _filled)
Predictor = Annotated[PredictorSettings | None, PREDICTOR]
"""The settings of a predictor, by its kind; None where the method has none."""
