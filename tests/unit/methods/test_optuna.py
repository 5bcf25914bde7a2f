import sys
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from test_baselines import searched, small_pool, trials_of

from bonas_core.errors import SettingsError
from bonas_core.methods.base import initial_design
from bonas_core.methods.optuna.strategy import OptunaStrategy, gp, tpe
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.testing import toy_problem
from bonas_core.trials import Trials

SPACE = NASBench201()


class Fixed(optuna.samplers.RandomSampler):
    """Asks for the given rows one after the other, and for the last one for ever."""

    def __init__(self, rows: list[list[int]], seen: list[Any]) -> None:
        super().__init__()
        self._rows, self._seen = rows, seen

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> int:
        asked = len([t for t in study.get_trials(deepcopy=False) if "told" not in t.user_attrs]) - self._base(study)
        self._seen[:] = study.get_trials()
        return self._rows[min(asked, len(self._rows)) - 1][int(param_name.removeprefix("decision"))]

    def _base(self, study: Any) -> int:
        if not hasattr(self, "_first"):
            self._first = len(study.get_trials(deepcopy=False)) - 1
        return self._first


def fixed(rows: list[list[int]], seen: list[Any], space: Any = SPACE, **options: Any) -> OptunaStrategy:
    return OptunaStrategy(space, "fixed", lambda seed, startup: Fixed(rows, seen), **options)


def test_a_cell_that_a_trial_has_is_told_with_its_score_and_asked_again():
    trials = trials_of(initial_design(SPACE, 12, 0), scores=np.arange(12) / 12)
    new = [4, 4, 4, 4, 4, 4]
    seen: list[Any] = []
    rows = [trials.genotypes[5].tolist(), trials.genotypes[7].tolist(), new]
    (proposal,) = fixed(rows, seen).propose(trials, 1, 0)
    assert proposal.genotype.tolist() == new
    assert [trial.value for trial in seen[12:14]] == [5 / 12, 7 / 12]


def test_a_random_cell_is_taken_where_nothing_new_comes_up():
    trials = trials_of(initial_design(SPACE, 12, 0))
    seen: list[Any] = []
    (proposal,) = fixed([trials.genotypes[5].tolist()], seen, tries=9).propose(trials, 1, 0)
    assert proposal.sampler == "random"
    assert not np.isin(SPACE.keys(proposal.genotype[None]), trials.keys).any()
    assert len(seen) == 12 + 9


def test_what_is_no_architecture_is_told_as_the_worst_score():
    space = small_pool(50)
    members = space.enumerate()
    trials = trials_of(members[:12], space, scores=np.linspace(0.3, 0.9, 12))
    stranger = next(c for c in SPACE.enumerate() if not np.isin(SPACE.keys(c[None]), space.keys(members)).any())
    seen: list[Any] = []
    (proposal,) = fixed([stranger.tolist(), members[20].tolist()], seen, space).propose(trials, 1, 0)
    assert proposal.genotype.tolist() == members[20].tolist()
    assert seen[12].value == pytest.approx(0.3)


def test_the_study_knows_how_every_trial_ended():
    genotypes = initial_design(SPACE, 12, 0)
    scores, finished, diverged = np.linspace(0.3, 0.9, 12), np.ones(12, dtype=bool), np.zeros(12, dtype=bool)
    scores[[3, 5, 8]] = np.nan
    finished[5], diverged[8] = False, True
    trials = Trials(genotypes, SPACE.keys(genotypes), scores, finished, diverged)
    seen: list[Any] = []
    fixed([[4] * 6], seen).propose(trials, 1, 0)
    states = [trial.state.name for trial in seen[:12]]
    assert states[3] == "FAIL"
    assert states[5] == "RUNNING"
    assert seen[8].value == pytest.approx(0.3)
    assert states.count("COMPLETE") == 10
    assert [list(trial.params.values()) for trial in seen[:12]] == genotypes.tolist()


@pytest.mark.parametrize("make_sampler", [tpe, gp])
def test_optuna_says_nothing_and_its_log_is_left_as_it_was(make_sampler: Any, capfd: pytest.CaptureFixture[str]):
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error", optuna.exceptions.ExperimentalWarning)
        searched(OptunaStrategy(SPACE, "optuna", make_sampler), 13)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""


def test_the_gaussian_process_climbs_one_max():
    scores = searched(OptunaStrategy(SPACE, "optuna-gp", gp, tries=4), 22).scores
    assert scores[10:].max() > scores[:10].max()
    assert scores[10:].mean() > scores[:10].mean() + 0.15


def test_a_space_without_decisions_is_refused():
    class Plain:
        name = "plain"

    with pytest.raises(SettingsError, match=r"^method `optuna-tpe`: space `plain` has no decisions; [^\n]+$"):
        OptunaStrategy(Plain(), "optuna-tpe", tpe)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["optuna-tpe", "optuna-gp"])
def test_without_optuna_the_remedy_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "bonas_core.methods.optuna.strategy", raising=False)
    monkeypatch.delattr("bonas_core.methods.optuna.strategy", raising=False)
    with pytest.raises(SettingsError, match=rf"^method `{name}` needs Optuna.*pip install 'bonas\[optuna\]'$"):
        toy_problem(method={"name": name})
