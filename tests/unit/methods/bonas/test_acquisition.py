import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from bonas_core.methods.bonas.acquisition import expected_improvement, log_expected_improvement
from bonas_core.methods.bonas.posterior import Posterior
from bonas_core.registry import names, resolve

means = st.floats(-5, 5)
deviations = st.floats(0.05, 5)


def posterior(mean: float | list[float], std: float | list[float] = 1.0) -> Posterior:
    mean = np.atleast_1d(np.array(mean, dtype=np.float64))
    return Posterior(mean, np.broadcast_to(np.square(std), mean.shape))


def test_ei_of_a_standard_normal_half_a_unit_below_the_incumbent_is_the_published_value():
    assert expected_improvement(posterior(-0.5), best=0.0) == pytest.approx([0.19780], abs=5e-6)


def test_minimising_is_maximising_the_negated_posterior():
    assert expected_improvement(posterior(0.5), best=0.0) == pytest.approx([0.6978], abs=5e-5)


def test_ei_at_the_incumbent_is_the_density_times_the_deviation():
    assert expected_improvement(posterior(2.0, 3.0), best=2.0) == pytest.approx([3 / np.sqrt(2 * np.pi)])


@pytest.mark.parametrize(("mean", "std", "best"), [(0.3, 0.7, 0.5), (-2.0, 1.5, 1.0), (4.0, 0.2, 1.0), (0.0, 3.0, 8.0)])
def test_ei_is_the_integral_of_the_improvement(mean: float, std: float, best: float):
    integral, _ = quad(lambda y: (y - best) * norm.pdf(y, mean, std), best, max(best, mean) + 12 * std, epsabs=1e-12)
    assert expected_improvement(posterior(mean, std), best) == pytest.approx([integral], rel=1e-7)


@given(means, deviations, means)
def test_log_form_is_the_logarithm_of_ei_where_that_is_accurate(mean: float, std: float, best: float):
    candidate = posterior(mean, std)
    gamma = (mean - best) / std
    if gamma > -4:  # below, EI itself loses its digits by cancellation
        expected = np.log(expected_improvement(candidate, best))
        np.testing.assert_allclose(log_expected_improvement(candidate, best), expected, rtol=1e-9, atol=1e-9)


def test_log_form_agrees_with_the_integral_where_ei_cancels():
    for gamma in (-5.0, -8.0, -12.0):
        # with y = -gamma + u the density is pdf(gamma) exp(gamma u - u^2 / 2): no underflow
        scaled, _ = quad(lambda u, g=gamma: u * np.exp(g * u - u**2 / 2), 0, 20)
        expected = norm.logpdf(gamma) + np.log(scaled)
        assert log_expected_improvement(posterior(gamma), 0.0) == pytest.approx([expected], rel=1e-9)


@pytest.mark.parametrize("x", [300.0, 999.0, 1001.0, 3000.0])
def test_log_form_agrees_with_the_integral_far_below_the_incumbent(x: float):
    # with u = s / x the integral of the improvement is pdf(x) / x^2 times one that is nearly 1
    near_one, _ = quad(lambda s: s * np.exp(-s - s**2 / (2 * x**2)), 0, 60, epsabs=1e-13)
    expected = norm.logpdf(x) - 2 * np.log(x) + np.log(near_one)
    assert log_expected_improvement(posterior(-x), 0.0) == pytest.approx([expected], rel=0, abs=1e-8)


def test_log_form_is_finite_and_strictly_ordered_far_below_the_incumbent():
    gammas = -np.concatenate([np.geomspace(1e6, 1, 4000), np.linspace(0.999, -10, 500)])
    values = log_expected_improvement(posterior(gammas.tolist()), 0.0)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("seam", [-1.0, -1000.0])
def test_log_form_has_no_step_between_its_branches(seam: float):
    width = 1e-7 * abs(seam)
    low, high = log_expected_improvement(posterior([seam - width, seam + width]), 0.0)
    slope = (high - low) / (2 * width)
    expected = 1000.0 if seam == -1000 else norm.cdf(-1) / expected_improvement(posterior(-1), 0.0)[0]
    assert slope == pytest.approx(expected, rel=1e-3)


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), deviations, means)
def test_a_larger_mean_is_worth_more(mean: float, more: float, std: float, best: float):
    low, high = log_expected_improvement(posterior([mean, mean + more], std), best)
    assert high > low


@given(st.floats(-1e3, 0), deviations, st.floats(0.01, 3))
def test_below_the_incumbent_a_larger_deviation_is_worth_more(mean: float, std: float, more: float):
    low, high = log_expected_improvement(posterior([mean, mean], [std, std + more]), 0.0)
    assert high > low


@given(means, deviations, means, st.floats(0.1, 10), st.floats(-10, 10))
def test_a_change_of_scale_and_origin_moves_log_ei_by_the_scale(
    mean: float, std: float, best: float, scale: float, shift: float
):
    moved = log_expected_improvement(posterior(scale * mean + shift, scale * std), scale * best + shift)
    expected = log_expected_improvement(posterior(mean, std), best) + np.log(scale)
    np.testing.assert_allclose(moved, expected, rtol=1e-6, atol=1e-6)


# What can stand in the place of expected improvement


def values(name: str, posterior: Posterior, seed: int = 0) -> np.ndarray:
    return np.asarray(resolve("acquisition", name)(posterior, 0.5, np.random.default_rng(seed)))


def test_acquisition_functions_are_what_their_formulas_say():
    posterior = Posterior(np.array([0.2, 0.9]), np.array([0.25, 0.01]))
    np.testing.assert_allclose(values("ei", posterior), log_expected_improvement(posterior, 0.5))
    np.testing.assert_allclose(values("ucb", posterior), [1.2, 1.1])
    np.testing.assert_allclose(values("mean", posterior), [0.2, 0.9])
    np.testing.assert_allclose(np.exp(values("pi", posterior)), [0.27425312, 0.99996833], rtol=1e-6)
    draws = np.array([values("thompson", posterior, seed) for seed in range(4000)])
    np.testing.assert_allclose(draws.mean(axis=0), posterior.mean, atol=0.03)
    np.testing.assert_allclose(draws.std(axis=0), posterior.std, atol=0.03)


@pytest.mark.parametrize("name", names("acquisition"))
def test_equal_generators_give_equal_values_and_a_better_candidate_is_worth_more(name: str):
    posterior = Posterior(np.array([-30.0, 0.0, 40.0]), np.full(3, 0.5))
    np.testing.assert_array_equal(values(name, posterior), values(name, posterior))
    assert (np.diff(values(name, posterior)) > 0).all()
