"""Parts that the run of a flow consists of."""
