"""Settings of a search: one tree for YAML files, `--set a.b=value`, the form in the UI and MLflow parameters."""

from bonas_core.settings.tree import (
    EVOLUTION_PRESETS,
    RECIPES,
    CustomEvaluatorSettings,
    DispatchSettings,
    PredictorSettings,
    Settings,
    TableSettings,
    TrainingSettings,
    leaves,
    parse_settings,
    parse_yaml,
    with_override,
)

__all__ = [
    "EVOLUTION_PRESETS",
    "RECIPES",
    "CustomEvaluatorSettings",
    "DispatchSettings",
    "PredictorSettings",
    "Settings",
    "TableSettings",
    "TrainingSettings",
    "leaves",
    "parse_settings",
    "parse_yaml",
    "with_override",
]
