from collections.abc import Iterable
from itertools import combinations, pairwise
from math import comb, inf, isnan, nan

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from bonas_core.report import Summary, honest_correlation, summary
from bonas_core.report.analysis import (
    Scale,
    best_so_far,
    draws_to_match,
    layers,
    layout,
    leaderboard,
    mean_best_so_far,
    predictions,
    progress,
    random_search,
    rank,
)
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.trials import Objective, Trial, TrialState

DONE, FAILED, DIVERGED = TrialState.DONE, TrialState.FAILED, TrialState.DIVERGED
ACCURACY = Objective("accuracy", "percent", "maximise")
LOSS = Objective("loss", "nats", "minimise")


def done(number: int, objective: float, key: str | None = None, **columns: object) -> Trial:
    return Trial(number, number, key or f"k{number}", "cell", DONE, objective=objective, **columns)  # type: ignore[arg-type]


def predicted_trials(actual: Iterable[float], predicted: Iterable[float]) -> list[Trial]:
    pairs = zip(actual, predicted, strict=True)
    return [done(i, objective, predicted_mean=mean) for i, (objective, mean) in enumerate(pairs)]


# ----- summary


def test_a_summary_counts_states_evaluations_and_distinct_architectures_apart() -> None:
    trials = [
        done(0, 80.0, "a", cost_s=2.0, surrogate_s=0.5),
        done(1, 90.0, "b", cost_s=3.0, surrogate_s=0.5),
        done(2, 80.0, "a", cost_s=4.0),
        Trial(3, 3, "c", "cell", FAILED, error="broke"),
        Trial(4, 4, "d", "cell", DIVERGED, cost_s=1.0),
        Trial(5, 5, "e", "cell", surrogate_s=1.0),
        Trial(6, 6, "f", "cell", TrialState.RUNNING),
    ]
    assert summary(trials, ACCURACY) == Summary(
        done=3,
        failed=1,
        diverged=1,
        proposed=2,
        evaluations=5,
        distinct=4,
        best=trials[1],
        surrogate_s=2.0,
        evaluation_s=10.0,
        honest_correlation=None,
        honest_trials=0,
    )


def test_a_summary_of_nothing_has_no_best_trial() -> None:
    assert summary([], ACCURACY) == Summary(0, 0, 0, 0, 0, 0, None, 0.0, 0.0, None, 0)


def test_the_best_trial_is_the_first_of_equals_in_the_direction_of_the_objective() -> None:
    trials = [done(2, 1.0), done(1, 3.0), done(0, 1.0), done(3, 3.0)]
    assert summary(trials, LOSS).best == trials[2]
    assert summary(trials, ACCURACY).best == trials[1]
    assert [trial.trial for trial in leaderboard(trials, LOSS)] == [0, 2, 1, 3]


def test_only_done_trials_with_a_finite_objective_are_on_the_leaderboard() -> None:
    trials = [
        done(0, nan),
        done(1, -inf),
        Trial(2, 2, "k", "cell", DIVERGED, objective=99.0),
        Trial(3, 3, "k", "cell", DONE),
        done(4, 5.0),
    ]
    assert leaderboard(trials, ACCURACY) == [trials[4]]


# ----- honest correlation


def test_honest_correlation_agrees_with_scipy_ties_included() -> None:
    rng = np.random.default_rng(1)
    actual = rng.integers(8, size=60).astype(float)
    predicted = actual + rng.integers(-3, 4, size=60)
    found = honest_correlation(predicted_trials(actual, predicted))
    assert found.n == 60
    assert found.spearman == pytest.approx(spearmanr(actual, predicted).statistic)
    assert found.pearson == pytest.approx(pearsonr(actual, predicted).statistic)


def test_honest_correlation_leaves_out_trials_without_prediction_or_objective() -> None:
    trials = [
        done(0, 1.0),
        Trial(1, 1, "k", "cell", FAILED, predicted_mean=2.0),
        Trial(2, 2, "k", "cell", predicted_mean=2.0),
        done(3, 1.0, predicted_mean=nan),
        *(done(4 + i, float(i), predicted_mean=float(i**3)) for i in range(4)),
    ]
    found = honest_correlation(trials)
    assert (found.n, found.spearman) == (4, pytest.approx(1.0))
    assert summary(trials, ACCURACY).honest_correlation == pytest.approx(1.0)
    assert summary(trials, ACCURACY).honest_trials == 4


@pytest.mark.parametrize(
    ("actual", "predicted"), [([], []), ([1.0, 2.0], [1.0, 2.0]), ([0.1] * 5, range(5)), (range(5), [0.1] * 5)]
)
def test_correlation_of_too_few_or_constant_values_is_not_defined(actual: list[float], predicted: list[float]) -> None:
    found = honest_correlation(predicted_trials(actual, predicted))
    assert (found.spearman, found.pearson, found.n) == (None, None, len(actual))


def test_an_unknown_or_infinite_deviation_counts_as_none() -> None:
    trials = [done(i, 1.0, predicted_mean=1.0, predicted_std=std) for i, std in enumerate([None, nan, inf, 0.5])]
    assert predictions(trials).std.tolist() == [0, 0, 0, 0.5]


# ----- best so far


def test_progress_holds_the_best_and_its_test_metric_over_failed_and_unfinished_trials() -> None:
    trials = [
        Trial(0, 0, "k", "cell", FAILED, sampler="initial"),
        done(1, 5.0, sampler="initial", metrics={"test": 50.0}),
        done(2, 7.0, metrics={"test": 20.0}),
        Trial(3, 3, "k", "cell"),
        Trial(4, 4, "k", "cell", DIVERGED),
        done(5, 6.0, metrics={"test": 90.0}),
        done(6, 8.0),
    ]
    found = progress(trials, ACCURACY)
    assert found.initial == 2
    assert isnan(found.best[0])
    assert found.best[1:].tolist() == [5, 7, 7, 7, 8]
    assert found.test[1:5].tolist() == [50, 20, 20, 20]
    assert isnan(found.test[0])
    assert isnan(found.test[5])


def test_progress_follows_the_direction() -> None:
    trials = [done(i, value) for i, value in enumerate([3.0, 4.0, 1.0, 2.0])]
    assert progress(trials, LOSS).best.tolist() == [3, 3, 1, 1]
    assert progress(trials, ACCURACY).best.tolist() == [3, 4, 4, 4]
    assert best_so_far([3.0, 4.0, 1.0, 2.0], LOSS).tolist() == [3, 3, 1, 1]
    assert best_so_far([nan, 4.0, 1.0, 5.0], ACCURACY)[1:].tolist() == [4, 4, 5]


def test_the_mean_of_searches_goes_as_far_as_the_shortest_of_them() -> None:
    searches = [[3.0, 4.0, 1.0, 9.0], [5.0, 1.0, 7.0]]
    assert mean_best_so_far(searches, ACCURACY).tolist() == [4.0, 4.5, 5.5]
    assert mean_best_so_far(searches, LOSS).tolist() == [4.0, 2.0, 1.0]
    assert len(mean_best_so_far([], ACCURACY)) == 0


# ----- random search


@pytest.mark.parametrize("objective", [ACCURACY, LOSS])
@pytest.mark.parametrize("population", [[3.0], [1.0, 5.0, 2.0, 9.0], [2.0, 2.0, 7.0, 7.0, 7.0, 1.0, 4.0], [4.0] * 5])
def test_random_search_equals_the_average_over_all_draws(objective: Objective, population: list[float]) -> None:
    best = max if objective is ACCURACY else min
    found = random_search(population, 100, objective)
    assert len(found.mean) == len(population)
    for n in range(1, len(population) + 1):
        bests = [best(drawn) for drawn in combinations(population, n)]
        assert found.mean[n - 1] == pytest.approx(sum(bests) / len(bests), rel=1e-12)
        for quantile, values in ((0.1, found.worse), (0.9, found.better)):
            # the worst value such that at least this share of draws is no better
            no_better = {v: sum(not objective.better(b, v) for b in bests) / len(bests) for v in bests}
            expected = min((v for v in no_better if no_better[v] >= quantile - 1e-12), key=objective.score)
            assert values[n - 1] == expected


def test_random_search_over_a_large_table_has_the_probabilities_of_the_hypergeometric_distribution() -> None:
    size, draws, good = 5000, 400, 7
    found = random_search([1.0] * good + [0.0] * (size - good), draws, ACCURACY)
    hit = 1 - comb(size - good, draws) / comb(size, draws)
    assert found.mean[-1] == pytest.approx(hit, rel=1e-12)
    assert found.worse[-1] == 0.0  # hit is about 0.44
    assert found.better[-1] == 1.0


def test_random_search_reaches_the_best_when_everything_is_drawn() -> None:
    population = np.random.default_rng(0).normal(size=300).tolist()
    found = random_search(population, 300, ACCURACY)
    assert found.mean[-1] == found.worse[-1] == found.better[-1] == max(population)
    assert (np.diff(found.mean) >= -1e-12).all()
    assert found.mean[0] == pytest.approx(np.mean(population))


def test_no_draws_make_an_empty_curve() -> None:
    assert len(random_search([1.0, 2.0], 0, ACCURACY).mean) == 0


def test_draws_to_match_is_the_mean_position_of_the_first_that_is_as_good() -> None:
    population = [5.0, 9.0, 9.0, 1.0, 2.0, 3.0]
    firsts = [min(pair) for pair in combinations(range(1, 7), 2)]
    assert draws_to_match(population, 9.0, ACCURACY) == pytest.approx(sum(firsts) / len(firsts))
    assert draws_to_match(population, 1.0, LOSS) == pytest.approx(3.5)
    assert draws_to_match(population, 10.0, ACCURACY) is None


def test_rank_counts_what_is_better() -> None:
    assert [rank([5.0, 9.0, 9.0, 1.0], value, ACCURACY) for value in (9.0, 5.0, 1.0)] == [1, 3, 4]
    assert rank([5.0, 9.0, 9.0, 1.0], 1.0, LOSS) == 1


def test_fractions_are_shown_as_percent_and_other_units_as_they_are() -> None:
    assert Scale.of(Objective("x", "fraction")) == Scale(100.0, "%")
    assert Scale.of(Objective("x", "percent", "minimise")) == Scale(1.0, "%")
    assert Scale.of(LOSS) == Scale(1.0, "nats")


# ----- layout


def cell201(operations: str) -> Architecture:
    space = NASBench201()
    return space.architecture(np.array([int(digit) for digit in operations], dtype=np.int8))


def cell101(text: str) -> Architecture:
    space = NASBench101()
    return space.architecture(space.parse([text])[0])


def test_layers_are_longest_paths_from_the_input() -> None:
    # edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3 of the cell are vertices 1 to 6
    assert layers(cell201("012340")) == [0, 1, 1, 2, 1, 2, 3, 4]
    assert layers(cell101("input;conv3x3;maxpool3x3;output|0-1,0-3,1-2,2-3")) == [0, 1, 2, 3]
    assert layers(cell101("input;output|0-1")) == [0, 1]


def test_the_output_comes_last_even_after_a_longer_dead_end() -> None:
    assert layers(Architecture(("input", "a", "b", "output"), ((0, 1), (1, 2), (0, 3)), "", "")) == [0, 1, 2, 3]
    assert layers(Architecture(("input", "output"), (), "", "")) == [0, 1]


@pytest.mark.parametrize(
    "architecture",
    [
        cell201("333333"),
        cell101("input;output|0-1"),
        cell101("input;conv1x1;conv3x3;maxpool3x3;conv3x3;conv3x3;output|0-1,0-2,0-5,0-6,1-5,2-3,3-4,4-5,5-6"),
        Architecture(tuple("abcdef"), tuple(combinations(range(6), 2)), "", ""),
        Architecture(("alone",), (), "", ""),
    ],
)
def test_every_edge_leads_right_one_column_at_a_time_and_meets_no_other_vertex(architecture: Architecture) -> None:
    found = layout(architecture)
    assert len(set(found.places)) == architecture.vertices
    assert [column for column, _ in found.places] == [float(layer) for layer in layers(architecture)]
    stops = []
    for (source, target), route in zip(architecture.edges, found.routes, strict=True):
        assert (route[0], route[-1]) == (found.places[source], found.places[target])
        assert all(right[0] == left[0] + 1 for left, right in pairwise(route))
        stops += route[1:-1]
    assert len(set(stops)) == len(stops)
    assert not set(stops) & set(found.places)


def test_a_simple_branch_is_laid_out_without_crossings() -> None:
    # two chains side by side, given in crossed order
    architecture = Architecture(tuple("iabcdo"), ((0, 1), (0, 2), (1, 4), (2, 3), (3, 5), (4, 5)), "", "")
    row = [place[1] for place in layout(architecture).places]
    assert (row[1] < row[2]) == (row[4] < row[3])
