"""Real trainings on images: data sets, recipes, the training loop, and the networks that it leaves behind."""
