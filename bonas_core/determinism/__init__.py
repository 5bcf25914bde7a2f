"""What makes searches repeatable: random streams that depend on a seed, and a fixed number of CPU threads."""
