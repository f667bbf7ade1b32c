"""Kernels in Triton for small sparse maps on a GPU: selection, tables, convolution, norm, pool.

A map is dense here: (images * H * W, C) rows in raster order, zero where a site is inactive, so that every shape is
known before the device has counted anything. Only the list of the sites to compute is compact, and its length stays on
the device. Nothing in this package waits for it.
"""
