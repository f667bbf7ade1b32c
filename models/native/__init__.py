"""Kernels in C, compiled for the processor that runs them: sparse convolution, norm, pools, attention, top-p, rows."""
