import numpy as np
import pytest
from scipy.stats import multivariate_normal

from bonas_core.methods.bonas.regression import fit

SHAPES = [(30, 5), (12, 40), (25, 25)]  # more trials than features, fewer, as many
INTERCEPTS = ["centre", "constant"]


def data(n: int, m: int, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = np.maximum(rng.normal(size=(n, m)) + 0.3, 0)  # as a rectified embedding
    targets = features @ rng.normal(size=m) + noise * np.sqrt(m) * rng.normal(size=n)
    return features, (targets - targets.mean()) / targets.std()


def design(features: np.ndarray, reference: np.ndarray, intercept: str) -> np.ndarray:
    if intercept == "centre":
        return features - reference.mean(axis=0)
    return np.column_stack([features, np.ones(len(features))])


def log_evidence(phi: np.ndarray, targets: np.ndarray, alpha: float, beta: float) -> float:
    n = len(phi)
    return multivariate_normal.logpdf(targets, np.zeros(n), np.eye(n) / beta + phi @ phi.T / alpha)


@pytest.mark.parametrize("intercept", INTERCEPTS)
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_posterior_is_that_of_the_paper_with_an_explicit_inverse(n: int, m: int, intercept: str):
    features, targets = data(n, m)
    new = data(7, m, seed=1)[0]
    model = fit(features, targets, intercept)
    phi, phi_new = design(features, features, intercept), design(new, features, intercept)
    S = np.linalg.inv(model.alpha * np.eye(phi.shape[1]) + model.beta * phi.T @ phi)  # Eq. 4
    mean = model.beta * S @ phi.T @ targets
    posterior = model.posterior(new)
    np.testing.assert_allclose(model.weights, mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(posterior.mean, phi_new @ mean, rtol=1e-6, atol=1e-9)
    variance = np.einsum("nm,mk,nk->n", phi_new, S, phi_new) + 1 / model.beta  # Eq. 5
    np.testing.assert_allclose(posterior.variance, variance, rtol=1e-6)


@pytest.mark.parametrize("intercept", INTERCEPTS)
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_posterior_is_that_of_a_gaussian_process_with_linear_kernel(n: int, m: int, intercept: str):
    features, targets = data(n, m)
    new = data(7, m, seed=1)[0]
    model = fit(features, targets, intercept)
    phi, phi_new = design(features, features, intercept), design(new, features, intercept)
    K = phi @ phi.T / model.alpha + np.eye(n) / model.beta
    k = phi_new @ phi.T / model.alpha
    posterior = model.posterior(new, noise=False)
    np.testing.assert_allclose(posterior.mean, k @ np.linalg.solve(K, targets), rtol=1e-6, atol=1e-9)
    variance = (phi_new**2).sum(axis=1) / model.alpha - np.einsum("ij,ji->i", k, np.linalg.solve(K, k.T))
    np.testing.assert_allclose(posterior.variance, variance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("intercept", INTERCEPTS)
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_evidence_is_the_marginal_density_of_the_targets(n: int, m: int, intercept: str):
    features, targets = data(n, m)
    model = fit(features, targets, intercept)
    phi = design(features, features, intercept)
    assert model.log_evidence == pytest.approx(log_evidence(phi, targets, model.alpha, model.beta), rel=1e-8)


def test_evidence_is_that_of_bishop_in_the_space_of_weights():
    features, targets = data(30, 5)
    model = fit(features, targets)
    phi = design(features, features, "centre")
    n, m = phi.shape
    precision = model.alpha * np.eye(m) + model.beta * phi.T @ phi
    expected = (
        m / 2 * np.log(model.alpha)
        + n / 2 * np.log(model.beta)
        - model.beta / 2 * np.sum((targets - phi @ model.weights) ** 2)
        - model.alpha / 2 * np.sum(model.weights**2)
        - np.linalg.slogdet(precision)[1] / 2
        - n / 2 * np.log(2 * np.pi)
    )
    assert model.log_evidence == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("n", "m", "intercept"),
    [(30, 5, "centre"), (30, 5, "constant"), (60, 20, "centre"), (60, 20, "constant"), (40, 60, "constant")],
)
def test_evidence_is_at_its_maximum(n: int, m: int, intercept: str):
    features, targets = data(n, m)
    model = fit(features, targets, intercept)
    assert 1 / model.beta > 2e-4, "noise at its floor: the maximum is then constrained"
    phi = design(features, features, intercept)
    for step in (0.05, 0.3, 2.0):
        for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
            alpha = model.alpha * np.exp(step * np.cos(angle))
            beta = model.beta * np.exp(step * np.sin(angle))
            assert log_evidence(phi, targets, alpha, beta) <= model.log_evidence


def test_noise_of_an_exact_fit_stays_at_its_floor():
    features, _ = data(10, 40)
    targets = features @ np.ones(40)
    targets = (targets - targets.mean()) / targets.std()
    model = fit(features, targets)
    assert 1 / model.beta >= 1e-4 * (1 - 1e-9)
    assert np.isfinite([model.alpha, model.beta, model.log_evidence]).all()


def test_known_weights_and_noise_are_found_from_many_trials():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 6))
    truth = np.array([1.0, -2.0, 0.5, 0.0, 3.0, -1.0])
    model = fit(features, features @ truth + 0.5 * rng.normal(size=4000), "constant")
    np.testing.assert_allclose(model.weights, [*truth, 0.0], atol=0.05)
    assert model.beta == pytest.approx(4.0, rel=0.1)
    assert model.alpha == pytest.approx(7 / np.sum(truth**2), rel=0.1)


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_constant_features_predict_the_mean_with_the_spread_of_the_targets(intercept: str):
    targets = data(30, 5)[1]
    model = fit(np.full((30, 4), 0.7), targets, intercept)
    posterior = model.posterior(np.full((3, 4), 0.7))
    np.testing.assert_allclose(posterior.mean, 0, atol=1e-6)
    np.testing.assert_allclose(posterior.variance, 1, rtol=0.1)


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_features_of_zeros_do_no_harm(intercept: str):
    posterior = fit(np.zeros((10, 4)), data(10, 4)[1], intercept).posterior(np.ones((2, 4)))
    assert np.isfinite(posterior.mean).all()
    assert (posterior.variance > 0).all()


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_equal_targets_are_predicted_as_they_are(intercept: str):
    features, _ = data(12, 5)
    posterior = fit(features, np.zeros(12), intercept).posterior(features)
    np.testing.assert_allclose(posterior.mean, 0, atol=1e-9)
    assert (posterior.variance > 0).all()


def test_centring_makes_predictions_blind_to_a_shift_of_the_features():
    features, targets = data(30, 5)
    here = fit(features, targets, "centre").posterior(features)
    there = fit(features + 100.0, targets, "centre").posterior(features + 100.0)
    np.testing.assert_allclose(here.mean, there.mean, atol=1e-8)
    np.testing.assert_allclose(here.variance, there.variance, atol=1e-8)


def test_a_constant_absorbs_targets_that_are_not_centred():
    features, targets = data(200, 5, noise=0.05)
    mean = fit(features, targets + 3.0, "constant").posterior(features).mean
    np.testing.assert_allclose(mean.mean(), 3.0, atol=0.05)


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_the_order_of_trials_and_a_rotation_of_features_do_not_matter(intercept: str):
    features, targets = data(20, 6)
    new = data(5, 6, seed=1)[0]
    rng = np.random.default_rng(3)
    order, rotation = rng.permutation(20), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    expected = fit(features, targets, intercept).posterior(new)
    actual = fit((features @ rotation)[order], targets[order], intercept).posterior(new @ rotation)
    np.testing.assert_allclose(actual.mean, expected.mean, atol=1e-8)
    np.testing.assert_allclose(actual.variance, expected.variance, atol=1e-8)


def test_single_precision_features_are_computed_in_double():
    features, targets = data(20, 6)
    single = features.astype(np.float32)
    a, b = fit(single, targets), fit(single.astype(np.float64), targets)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert a.posterior(single).mean.dtype == np.float64


def test_far_from_the_trials_the_variance_grows():
    features, targets = data(30, 5)
    variance = fit(features, targets).posterior(np.array([features.mean(axis=0), features.mean(axis=0) + 10])).variance
    assert variance[1] > variance[0]


def test_single_precision_ranks_as_double_does():
    features, targets = data(40, 60)
    new = data(500, 60, seed=2)[0]
    model = fit(features, targets)
    double, single = model.posterior(new), model.posterior(new, precision=np.float32)
    np.testing.assert_allclose(single.mean, double.mean, atol=1e-4)
    np.testing.assert_allclose(single.variance, double.variance, rtol=1e-3)
