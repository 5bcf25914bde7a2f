"""BONAS in its parts: predictors, regression, acquisition, schedule, and the strategy made of them."""
