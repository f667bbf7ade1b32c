"""The parts that the models are built of."""
