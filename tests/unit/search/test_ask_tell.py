"""`bonas_core.Search`."""

from pathlib import Path

import pytest

from bonas_core import InputError, Outcome, Search, TrainingDivergedError, TrialState
from bonas_core.errors import SearchLockedError
from bonas_core.search import run
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.testing import ToyEvaluator, timeless, toy_problem
from bonas_core.trials import Trial

METHOD = {"sampler": "random", "pool": 60, "retrain_every": 4}
PREDICTOR = {"epochs": 5, "ensemble": 1, "layers": 2}


def count(cell) -> float:
    """An objective."""
    return cell.operations.count("nor_conv_3x3") / 6


def search(objective=count, **changes) -> Search:
    return Search("nasbench201", objective, **{"trials": 12, "method": METHOD, "predictor": PREDICTOR, **changes})


def chosen(rows: list[Trial]) -> list[dict]:
    return timeless([trial.with_changes(round=0, attempt=1, device="cpu") for trial in rows])


def test_a_run_makes_the_trials_of_the_plain_driver():
    own = Search("nasbench201", ToyEvaluator(NASBench201()), trials=12, seed=3, method=METHOD, predictor=PREDICTOR)
    best = own.run()
    assert timeless(own.trials) == timeless(run(toy_problem(12, 3, method=METHOD, predictor=PREDICTOR)).rows)
    assert best.objective == max(trial.objective for trial in own.trials)


def test_asking_and_telling_one_by_one_makes_the_trials_of_a_run():
    told = search(None, unit="fraction")
    while not told.is_over():
        asked = told.ask()
        told.tell(asked, count(asked.architecture))
    ran = search()
    ran.run()
    assert chosen(told.trials) == chosen(ran.trials)


def test_several_may_be_asked_for_before_the_first_is_told():
    own = search(None)
    asked = [own.ask() for _ in range(9)]
    assert len({one.architecture.key for one in asked}) == 9
    for one in reversed(asked):
        own.tell(one, count(one.architecture))
    assert [trial.state for trial in own.trials] == [TrialState.DONE] * 9


def test_a_search_goes_on_in_its_folder(tmp_path: Path):
    whole = search(folder=tmp_path / "whole")
    whole.run()
    with search(folder=tmp_path / "parts", trials=7) as begun:
        begun.run()
    with search(folder=tmp_path / "parts") as resumed:
        assert len(resumed.trials) == 7
        resumed.run()
        assert timeless(resumed.trials) == timeless(whole.trials)
        assert list((tmp_path / "parts" / "predictors").iterdir())


def test_a_trial_that_was_asked_for_in_a_process_that_died_is_asked_for_again(tmp_path: Path):
    with search(None, folder=tmp_path) as begun:
        lost = [begun.ask() for _ in range(3)]
        begun.tell(lost[1], 0.5)
    with search(None, folder=tmp_path) as resumed:
        assert [resumed.ask() for _ in range(2)] == [lost[0], lost[2]]
        assert resumed.ask().trial == 3


def test_a_folder_has_one_writer_and_one_kind_of_search(tmp_path: Path):
    with search(folder=tmp_path) as own:
        with pytest.raises(SearchLockedError):
            search(folder=tmp_path)
        own.run()
    with pytest.raises(InputError, match=r"holds a search with another `seed`; name another folder"):
        search(folder=tmp_path, seed=5)
    with pytest.raises(InputError, match=r"holds a search with another `fingerprint`"):
        search(lambda cell: 0.5, folder=tmp_path)
    search(folder=tmp_path, trials=13).close()  # a larger budget is no other search


def test_the_budget_of_a_run_may_be_another(tmp_path: Path):
    own = search(folder=tmp_path)
    own.run(trials=6)
    assert len(own.trials) == 6
    own.run(trials=8)
    assert len(own.trials) == 8


def test_errors_and_divergences_are_told():
    own = search(None)
    failed, diverged, endless = (own.ask() for _ in range(3))
    assert own.tell(failed, RuntimeError("no memory")).error == "RuntimeError: no memory"
    assert own.tell(diverged, TrainingDivergedError("too fast")).state is TrialState.DIVERGED
    assert own.tell(endless, Outcome(float("nan"))).state is TrialState.DIVERGED
    with pytest.raises(InputError, match="no trial has an objective yet"):
        _ = own.best


def test_what_was_not_asked_for_cannot_be_told():
    own = search(None)
    asked = own.ask()
    own.tell(asked, 0.5)
    for number in (asked, 0, 7):
        with pytest.raises(InputError, match="does not wait for an outcome"):
            own.tell(number, 0.5)
    with pytest.raises(InputError, match=r"trial 1: the evaluator returned str; return a number"):
        own.tell(own.ask(), "good")


def test_a_search_without_an_objective_cannot_run():
    with pytest.raises(InputError, match="no objective to run"):
        search(None).run()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"objective": "train"}, "objective: a str is neither a function nor an evaluator"),
        ({"objective": lambda: 1.0}, "cannot be called with an architecture"),
        ({"direction": "max"}, "direction `max` is none; use maximise or minimise"),
        ({"method": {"name": "x"}}, "method `x` is unknown"),
        ({"metod": {}}, "`metod` is not a setting"),
        ({"trials": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(changes: dict, fault: str):
    with pytest.raises(InputError, match=fault) as caught:
        search(changes.pop("objective", count), **changes)
    assert "\n" not in str(caught.value)


def test_a_space_that_is_used_up_says_so():
    class Few(NASBench201):
        """Three cells."""

        size = 3

        def enumerate(self):
            return super().enumerate()[:3]

        def sample(self, number, rng):
            return self.enumerate()[rng.integers(3, size=number)]

    own = Search(Few(), None, method={"name": "random"})
    for _ in range(3):
        own.tell(own.ask(), 0.5)
    with pytest.raises(InputError, match="has no more architectures to ask for"):
        own.ask()
