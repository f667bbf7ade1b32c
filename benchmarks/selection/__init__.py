"""MESM's selection in each of its modes: scores, gradients, sites and cost."""
