"""A place for the cache of numba, which librosa asks for as it is imported."""

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path


def ensure_numba_cache() -> None:
    """Set NUMBA_CACHE_DIR to a folder of this process where numba could write neither beside librosa nor at home.

    numba raises an error then, as with a read-only installation and a user without a home. The folder is private and
    goes with the process: numba unpickles what it finds there.
    """
    spec = find_spec("librosa")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    if "NUMBA_CACHE_DIR" in os.environ or any(map(_is_writable, [*folders, home / "numba"])):
        return
    own = tempfile.mkdtemp(prefix="emotion-pipeline-numba-")
    os.environ["NUMBA_CACHE_DIR"] = own
    atexit.register(shutil.rmtree, own, ignore_errors=True)


def _is_writable(folder: Path) -> bool:
    """Return True if `folder`, or the nearest one above it that exists, can be written to."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
