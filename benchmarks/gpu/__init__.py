"""Everything that needs a GPU, checked and timed in one go: `make gpu-test`."""
