"""BONAS: Bayesian-optimised neural architecture search as a plain library, without any orchestration."""
