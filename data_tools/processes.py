"""Worker processes that never outlive the run that started them."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Call it first in a worker: it ends at once when its parent has ended, however that went.

    Without it, the workers of a killed run would wait for work for ever, and what one of them is at would be written
    into a folder that the next run may hold by then.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
