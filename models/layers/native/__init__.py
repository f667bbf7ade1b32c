"""Submanifold convolution by kernels in C, compiled for the processor that runs them."""
