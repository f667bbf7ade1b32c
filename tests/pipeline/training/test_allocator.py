"""After `keep_freed_memory` a freed block's pages are used again instead of being mapped anew."""

import subprocess
import sys

SCRIPT = """
import resource, sys
from pipeline.training.allocator import keep_freed_memory

if "keep" in sys.argv:
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(2):
    b"x" * 2**26
before = faults()
for _ in range(4):
    b"x" * 2**26
print(faults() - before)
"""


def _faults(*args):
    done = subprocess.run([sys.executable, "-c", SCRIPT, *args], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_blocks_are_used_again():
    anew, kept = _faults(), _faults("keep")
    assert kept < 0.1 * anew
