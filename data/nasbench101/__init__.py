"""NAS-Bench-101: the table of 423,624 trained cells, its space, and surrogates that stand in for it."""
