"""Tasks: multi-label emotion, single-label emotion, sentiment. One file each, behind one interface."""
