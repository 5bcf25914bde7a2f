"""Settings of a search: one tree for YAML files, `--set a.b=value`, the form in the UI and MLflow parameters."""

from bonas_core.settings.evaluator import CustomEvaluatorSettings, TableSettings, TrainingSettings
from bonas_core.settings.method import MethodSettings
from bonas_core.settings.parsing import leaves, names_a_plugin, parse_settings, parse_yaml, with_override
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.settings.tree import DispatchSettings, Settings

__all__ = [
    "CustomEvaluatorSettings",
    "DispatchSettings",
    "MethodSettings",
    "PredictorSettings",
    "Settings",
    "TableSettings",
    "TrainingSettings",
    "leaves",
    "names_a_plugin",
    "parse_settings",
    "parse_yaml",
    "with_override",
]
