"""Fixtures that several packages' tests share."""

import os
import sys
from pathlib import Path

# So that test files can say `from acted import ...`: with importlib mode nothing is on the path by itself.
sys.path.append(str(Path(__file__).parent))

# Tests run on machines of 2 cores, several at a time: one thread a process is steadier and no slower there.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
