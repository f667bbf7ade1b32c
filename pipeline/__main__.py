"""`python -m pipeline`, the same as `pipeline`."""

from pipeline.cli import main

main()
