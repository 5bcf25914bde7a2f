"""MLflow: runs of searches and trainings, and the model registry."""
