"""After `keep_freed_memory` a freed block's pages are used again instead of being mapped anew."""

import subprocess
import sys

SCRIPT = """
import resource
from pipeline.training.device import keep_freed_memory

def faults():
    for _ in range(2):
        b"x" * 2**26
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"x" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

anew = faults()
assert keep_freed_memory()
print(anew, faults())
"""


def test_freed_blocks_are_used_again():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    anew, kept = map(int, done.stdout.split())
    assert kept < 0.1 * anew
