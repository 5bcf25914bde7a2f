"""Tasks: units that can fail, or be placed, on their own, and the places where results are kept."""
