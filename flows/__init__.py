"""Flows: searches, final trainings, rankings and upkeep, and the command line that starts them."""
