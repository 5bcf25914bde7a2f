"""What turns architectures into numbers: the interface of evaluators, look-ups in tables, and plain functions."""
