"""One training: its loop, batches, losses, optimizer, state and log."""
