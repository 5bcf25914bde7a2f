import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from bonas_core.ranks import average_ranks


@given(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 1e-300, 2.0, np.inf]) | st.floats(allow_nan=False)))
def test_ranks_are_those_of_scipy(values: list[float]):
    np.testing.assert_array_equal(average_ranks(values), rankdata(values))
