"""What runs, in order: reorganize, preprocess, train, evaluate, predict."""
