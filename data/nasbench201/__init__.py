"""NAS-Bench-201: the table of 15,625 trained cells."""
