"""How fast the models and the data stages are, side by side."""
