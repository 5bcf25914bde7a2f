"""Predictors: networks that learn embeddings of architectures from their scores."""
