"""Raw media to tensors; knows no model.

Imported before torch by all packages: the OpenMP runtime that comes with torch reads its settings when it is loaded.
"""

import os

# A thread that waits for the others turns in a loop for 10 ms and more, and so takes a core from a process that would
# work; with as few turns as this a training step beside one busy process takes half of the time. Users' settings win.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
