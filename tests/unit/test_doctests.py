import doctest
import importlib
import pkgutil

import pytest

import bonas_core

MODULES = [name for _, name, _ in pkgutil.walk_packages(bonas_core.__path__, "bonas_core.")]
WITH_EXAMPLES = {
    "bonas_core.methods.bonas.acquisition",
    "bonas_core.methods.bonas.regression",
    "bonas_core.methods.bonas.predictors.gcn",
    "bonas_core.ranks",
    "bonas_core.trials.history",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_right(name: str):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0 or name not in WITH_EXAMPLES


def test_modules_with_examples_are_found():
    assert set(MODULES) > WITH_EXAMPLES
