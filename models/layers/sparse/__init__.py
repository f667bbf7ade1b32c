"""Convolution, pooling and attention on maps of which only some sites are active."""
