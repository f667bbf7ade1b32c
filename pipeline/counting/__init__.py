"""Multiply-adds and parameters, counted."""
