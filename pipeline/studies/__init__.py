"""The paper's studies on a data folder: score and cost over top-p, and every subset of modalities."""
