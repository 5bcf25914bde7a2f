"""The Gaussian process on embeddings, against the textbook's formulas (Rasmussen and Williams 2006, 2.25, 2.26)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonas_core.methods.bonas.gaussian_process import GaussianProcess


def data(n: int, M: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, M))
    targets = np.sin(features[:, 0]) + 0.1 * rng.normal(size=n)
    return features, (targets - targets.mean()) / targets.std()


@given(st.integers(3, 30), st.integers(1, 6), st.integers(0, 1000))
def test_mean_variance_and_evidence_are_those_of_the_textbook(n: int, M: int, seed: int):
    features, targets = data(n, M, seed)
    new = np.random.default_rng(seed + 1).normal(size=(5, M))
    fitted = GaussianProcess(min_noise=0.05).fit(features, targets)
    inputs, queries = ((x - features.mean(0)) / features.std(0) for x in (features, new))

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return fitted.signal * np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1) / fitted.scale)

    noisy = kernel(inputs, inputs) + fitted.noise * np.eye(n)
    cross = kernel(queries, inputs)
    posterior = fitted.posterior(new)
    expected = cross @ np.linalg.solve(noisy, targets)
    np.testing.assert_allclose(posterior.mean, expected, atol=1e-3)
    variance = fitted.signal - np.einsum("ij,ji->i", cross, np.linalg.solve(noisy, cross.T)) + fitted.noise
    np.testing.assert_allclose(posterior.variance, variance, atol=1e-3)
    evidence = -0.5 * (targets @ np.linalg.solve(noisy, targets) + np.linalg.slogdet(2 * np.pi * noisy)[1])
    assert fitted.log_evidence == pytest.approx(evidence, abs=1e-2)


def test_a_smooth_function_is_learnt():
    features, targets = data(60, 1)
    new = np.linspace(-1.5, 1.5, 20)[:, None]
    fitted = GaussianProcess(0.01).fit(features, targets)
    assert np.corrcoef(fitted.posterior(new).mean, np.sin(new[:, 0]))[0, 1] > 0.99
    far = fitted.posterior(np.array([[50.0]]))
    assert far.mean[0] == pytest.approx(fitted.centre, abs=1e-6)
    assert far.variance[0] == pytest.approx(fitted.signal + fitted.noise)


def test_features_that_do_not_vary_tell_nothing():
    features, targets = data(20, 2)
    padded = np.concatenate([features, np.full((20, 2), 3.0)], axis=1)
    one, other = GaussianProcess().fit(features, targets), GaussianProcess().fit(padded, targets)
    new = np.concatenate([features[:3] + 0.1, np.full((3, 2), -7.0)], axis=1)
    np.testing.assert_allclose(other.posterior(new).mean, one.posterior(new[:, :2]).mean)


@pytest.mark.parametrize("targets", [np.zeros(8), np.array([1.0, -1.0] * 4)])
def test_degenerate_targets_and_equal_embeddings_do_no_harm(targets: np.ndarray):
    for features in (np.zeros((8, 3)), np.repeat(np.eye(2), 4, axis=0)):
        posterior = GaussianProcess(0.1).fit(features, targets).posterior(features)
        assert np.isfinite(posterior.mean).all()
        assert (posterior.variance > 0).all()


def test_what_is_stored_predicts_the_same():
    features, targets = data(15, 3)
    fitted = GaussianProcess().fit(np.concatenate([features, np.ones((15, 1))], axis=1), targets)
    again = GaussianProcess().restore(fitted.described(), fitted.arrays())
    new = np.random.default_rng(0).normal(size=(4, 4))
    np.testing.assert_array_equal(again.posterior(new).mean, fitted.posterior(new).mean)
    np.testing.assert_array_equal(again.posterior(new).variance, fitted.posterior(new).variance)


@pytest.mark.parametrize("change", [{"root": np.ones((3, 3))}, {"weights": np.ones(2)}, {"inputs": np.full(4, np.nan)}])
def test_arrays_that_do_not_belong_together_are_refused(change: dict):
    fitted = GaussianProcess().fit(*data(15, 3))
    with pytest.raises(ValueError, match=r"belong together|not all of its numbers"):
        GaussianProcess().restore(fitted.described(), {**fitted.arrays(), **change})
