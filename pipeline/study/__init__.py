"""Many trainings: their plan, runs and results."""
