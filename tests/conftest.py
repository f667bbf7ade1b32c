"""Fixtures that several packages' tests share."""

import os

# Tests run on machines of 2 cores, several at a time: one thread a process is steadier and no slower there.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
