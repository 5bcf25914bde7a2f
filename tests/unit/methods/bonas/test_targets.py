import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm

from bonas_core.methods.bonas.targets import TRANSFORMS, transform

fractions = st.lists(st.floats(0.0, 1.0).map(lambda y: round(y, 4)), min_size=2, max_size=40).map(np.array)
kinds = st.sampled_from(TRANSFORMS)


@given(fractions, kinds)
def test_targets_are_standardised(scores: np.ndarray, kind: str):
    values = transform(scores, kind).values
    assert values.mean() == pytest.approx(0, abs=1e-9)
    # the logit cannot tell scores apart beyond its clip
    told_apart = len(np.unique(np.clip(scores, 1e-4, 1 - 1e-4) if kind == "logit" else scores)) > 1
    assert values.std() == pytest.approx(1 if told_apart else 0, abs=1e-9)


@given(fractions, kinds)
def test_targets_keep_the_order_of_scores(scores: np.ndarray, kind: str):
    order = np.argsort(scores)
    steps, rises = np.diff(transform(scores, kind).values[order]), np.diff(scores[order])
    assert (steps[rises == 0] == 0).all()
    inside = (scores[order][:-1] >= 1e-4) & (scores[order][1:] <= 1 - 1e-4)
    assert (steps[(rises > 0) & (inside | (kind != "logit"))] > 0).all()


@given(fractions, kinds)
def test_the_inverse_map_gives_observed_scores_back(scores: np.ndarray, kind: str):
    targets = transform(scores, kind)
    expected = np.clip(scores, 1e-4, 1 - 1e-4) if kind == "logit" else scores
    np.testing.assert_allclose(targets.to_scores(targets.values), expected, atol=1e-9)


@given(fractions, kinds, st.lists(st.floats(-6, 6), min_size=2, max_size=10))
def test_the_inverse_map_rises_everywhere(scores: np.ndarray, kind: str, values: list[float]):
    mapped = transform(scores, kind).to_scores(np.sort(values))
    assert np.isfinite(mapped).all()
    assert (np.diff(mapped) >= -1e-12).all()


@given(fractions, kinds, st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_matter(scores: np.ndarray, kind: str, random):
    rows = list(range(len(scores)))
    random.shuffle(rows)
    np.testing.assert_allclose(transform(scores[rows], kind).values, transform(scores, kind).values[rows], atol=1e-9)


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("score", [0.1, 0.3, 0.9, 0.0, 1.0])
@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_equal_scores_have_targets_of_zero(kind: str, score: float, count: int):
    targets = transform(np.full(count, score), kind)
    np.testing.assert_allclose(targets.values, 0, atol=1e-12)
    np.testing.assert_allclose(targets.to_scores(np.zeros(1)), score, atol=1.1e-4)
    assert targets.to_scores(np.ones(1)) > targets.to_scores(np.zeros(1)) - 1e-12


@pytest.mark.parametrize("kind", ["standardise", "rank"])
def test_differences_too_small_to_be_squared_do_no_harm(kind: str):
    targets = transform(np.array([0.0, 1e-200, 2e-200]), kind)
    assert np.isfinite(targets.values).all()
    assert (np.diff(targets.values) > 0).all()
    assert np.isfinite(targets.to_scores(np.array([-3.0, 3.0]))).all()


def test_standardise_is_the_score_less_its_mean_over_its_deviation():
    scores = np.array([1.0, 2.0, 6.0])
    targets = transform(scores, "standardise")
    np.testing.assert_allclose(targets.values, (scores - 3) / np.sqrt(14 / 3))
    np.testing.assert_allclose(targets.to_scores(np.array([-5.0, 5.0])), 3 + np.sqrt(14 / 3) * np.array([-5, 5]))


def test_logit_is_the_standardised_log_odds():
    scores = np.array([0.1, 0.5, 0.9, 0.8])
    z = np.log(scores / (1 - scores))
    np.testing.assert_allclose(transform(scores, "logit").values, (z - z.mean()) / z.std())


def test_logit_never_leaves_the_unit_interval():
    targets = transform(np.array([0.0, 0.4, 1.0]), "logit")
    mapped = targets.to_scores(np.array([-50.0, 50.0]))
    assert (mapped >= 0).all()
    assert (mapped <= 1).all()
    assert mapped[0] < 1e-4 < 1 - 1e-4 < mapped[1]
    np.testing.assert_allclose(expit(targets.centre), expit(logit([1e-4, 0.4, 1 - 1e-4]).mean()))


def test_rank_gives_normal_scores():
    values = transform(np.array([10.0, -3.0, 0.5, 200.0]), "rank").values
    expected = norm.ppf(np.array([2.5, 0.5, 1.5, 3.5]) / 4)
    np.testing.assert_allclose(values, expected / expected.std())


def test_rank_gives_ties_their_average_rank():
    values = transform(np.array([1.0, 2.0, 2.0, 3.0]), "rank").values
    expected = norm.ppf(np.array([0.5, 2.0, 2.0, 3.5]) / 4)
    np.testing.assert_allclose(values, (expected - expected.mean()) / expected.std(), atol=1e-12)


def test_rank_sees_only_the_order():
    scores = np.array([0.2, 0.9, 0.5, 0.1])
    np.testing.assert_array_equal(transform(scores, "rank").values, transform(np.exp(9 * scores), "rank").values)


def test_rank_interpolates_between_observed_scores():
    scores = np.array([0.1, 0.2, 0.6, 0.7])
    targets = transform(scores, "rank")
    middle = (targets.node_values[1] + targets.node_values[2]) / 2
    np.testing.assert_allclose(targets.to_scores(np.array([middle])), 0.4)


def test_rank_extends_on_a_straight_line_beyond_the_best_and_the_worst():
    scores = np.array([0.1, 0.2, 0.6, 0.7])
    targets = transform(scores, "rank")
    low, high = targets.node_values[[0, -1]]
    above = targets.to_scores(np.array([high + 1, high + 2]))
    below = targets.to_scores(np.array([low - 1, low - 2]))
    np.testing.assert_allclose(above, 0.7 + 0.3 / high * np.array([1, 2]))
    np.testing.assert_allclose(below, 0.1 + 0.3 / low * np.array([1, 2]))


def test_rank_is_not_stretched_upwards_by_a_hopeless_score():
    scores = np.array([0.1, 0.97, 0.975, 0.98, 0.985, 0.99])
    targets = transform(scores, "rank")
    assert targets.to_scores(targets.node_values[-1:] + 1)[0] < 1.0
