"""Digits: the small images that scikit-learn ships, for trainings that take seconds; nothing has to be prepared."""
