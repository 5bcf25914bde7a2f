import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonas_core.methods.bonas.predictors.losses import LOSSES, loss_weights


@pytest.mark.parametrize(
    ("loss", "middle"),
    [
        ("exp", (math.exp(0.5) - 1) / (math.e - 1)),
        ("log", math.log(1.5) / math.log(2)),
        ("linear", 0.5),
        ("mse", 1.0),
    ],
)
def test_weight_of_a_middling_score_is_that_of_the_paper(loss: str, middle: float):
    assert loss_weights(np.array([0.5]), loss) == pytest.approx([middle])


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_run_from_zero_at_the_worst_to_one_at_the_best(loss: str):
    np.testing.assert_allclose(loss_weights(np.array([0.0, 1.0]), loss), [1.0 if loss == "mse" else 0.0, 1.0])


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["exp", "log", "linear"]))
def test_a_better_score_never_weighs_less(a: float, b: float, loss: str):
    low, high = loss_weights(np.sort([a, b]), loss)
    assert 0 <= low <= high <= 1
    assert (high > low) or abs(a - b) < 1e-9


@given(st.floats(0.01, 0.99))
def test_exp_favours_the_best_most_and_log_least(y: float):
    exp, linear, log = (loss_weights(np.array([y]), loss)[0] for loss in ("exp", "linear", "log"))
    assert exp < linear < log


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_outside_the_unit_interval_count_as_its_ends(loss: str):
    np.testing.assert_array_equal(loss_weights(np.array([-3.0, 7.0]), loss), loss_weights(np.array([0.0, 1.0]), loss))


def test_an_unknown_loss_is_refused_by_name():
    with pytest.raises(ValueError, match="loss `huber` is not one of exp, log, linear, mse"):
        loss_weights(np.array([0.5]), "huber")
