"""Child program of `csd.read_csd`: an HDF5 file of labels -> plain arrays on standard output.

One flipped byte can make the HDF5 library hang, crash or ask for all memory. Here that costs this process only. It is
started by its path and imports nothing of the project. Exit status 3: the file cannot be used; the reason is on stderr.
"""

import json
import resource
import sys
from collections import Counter
from io import BytesIO
from typing import Any

import h5py
import numpy as np

REFUSED = 3
MAX_MEMORY_BYTES = 8 * 2**30
# CMU_MOSEI_Labels.csd has 3,293 videos, 23,259 rows and 7 columns.
MAX_VIDEOS, MAX_ROWS_A_VIDEO, MAX_COLUMNS = 100_000, 10_000, 64
_MAX_CHUNK_BYTES = 64 * 2**20
_MAX_ROWS = 1_000_000


class _RefusedError(Exception):
    """A file, or a video of it, that is not used; the argument says why."""


def read(path: str) -> dict[str, np.ndarray]:
    """Arrays of all usable videos, one after the other.

    features (N, D) float64; intervals (N, 2) float64; counts (V,) int64, rows of each video;
    about: the rest as JSON in uint8: videos (V names), problems (name -> why), columns (D names, empty where the file
    states none that fit).
    """
    with h5py.File(path, "r", locking=False) as file:
        root = _root(file)
        stated = _stated_columns(root)
        found, problems = _videos(_member(root, "data", h5py.Group))
    widths = Counter(features.shape[1] for features, _ in found.values())
    width = len(stated) if stated else max(widths, key=lambda known: (widths[known], known), default=0)
    for name in [name for name, (features, _) in found.items() if features.shape[1] != width]:
        problems[name] = f"its features have {found.pop(name)[0].shape[1]} columns, expected {width}"
    counts = [len(features) for features, _ in found.values()]
    about = {"videos": list(found), "problems": problems, "columns": stated}
    return {
        "features": np.concatenate([np.empty((0, width)), *(features for features, _ in found.values())]),
        "intervals": np.concatenate([np.empty((0, 2)), *(intervals for _, intervals in found.values())]),
        "counts": np.array(counts, dtype=np.int64),
        "about": np.frombuffer(json.dumps(about).encode("ascii"), dtype=np.uint8),
    }


def _root(file: h5py.File) -> h5py.Group:
    """The one group that holds `data`: "All Labels", or "Emotion Labels" and the like in older files."""
    names = [name for name in file if _holds_data(file, name)]
    if len(names) != 1:
        listed = ", ".join(map(repr, list(file)[:5])) or "nothing"
        raise _RefusedError(f"expected one group with `data` in it, as 'All Labels'; it holds {listed}")
    return _member(file, names[0], h5py.Group)


def _holds_data(file: h5py.File, name: str) -> bool:
    try:
        return "data" in _member(file, name, h5py.Group)
    except _RefusedError:
        return False


def _videos(data: h5py.Group) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, str]]:
    """Features and intervals by video, and what is wrong with the others."""
    if len(data) > MAX_VIDEOS:
        raise _RefusedError(f"it has {len(data)} videos; the limit is {MAX_VIDEOS}")
    found, problems, rows = {}, {}, 0
    for name in data:
        try:
            video = _member(data, name, h5py.Group)
            features, intervals = _numbers(video, "features"), _numbers(video, "intervals")
            if intervals.shape != (len(features), 2):
                raise _RefusedError(
                    f"features are {features.shape}, intervals {intervals.shape}, not {len(features), 2}"
                )
        except _RefusedError as refused:
            problems[name] = str(refused)
        except Exception as error:  # h5py raises nearly any kind on damaged files
            problems[name] = f"{type(error).__name__}: {error}"[:200]
        else:
            found[name] = features, intervals
            rows += len(features)
        if rows > _MAX_ROWS:
            raise _RefusedError(f"it has more than {_MAX_ROWS} rows, the limit")
    return found, problems


def _member(group: h5py.Group, name: str, kind: type) -> Any:
    """Target of a hard link. The others can name any file of this machine, and are refused."""
    link = group.get(name, getlink=True)
    if link is None:
        raise _RefusedError(f"there is no {name!r}")
    if not isinstance(link, h5py.HardLink):
        raise _RefusedError(f"{name!r} is a link to another place; labels must be in the file itself")
    member = group[name]
    if not isinstance(member, kind):
        raise _RefusedError(f"{name!r} is a {type(member).__name__}, expected a {kind.__name__}")
    return member


def _numbers(video: h5py.Group, name: str) -> np.ndarray:
    """A table (n, D) of numbers as float64."""
    dataset = _member(video, name, h5py.Dataset)
    _check_storage(dataset, name)
    if dataset.dtype.kind not in "fiu" or dataset.ndim != 2 or dataset.shape[1] > MAX_COLUMNS:
        raise _RefusedError(f"{name} is {dataset.dtype} {dataset.shape}, expected numbers (n, up to {MAX_COLUMNS})")
    if len(dataset) > MAX_ROWS_A_VIDEO:
        raise _RefusedError(f"{name} has {len(dataset)} rows; the limit is {MAX_ROWS_A_VIDEO}")
    return np.asarray(dataset[()], dtype=np.float64)


def _check_storage(dataset: h5py.Dataset, name: str) -> None:
    if dataset.external or dataset.is_virtual:
        raise _RefusedError(f"{name} keeps its values in another file; labels must be in the file itself")
    # A chunk is unpacked whole, however little of it is used.
    if dataset.chunks and np.prod(dataset.chunks, dtype=float) * dataset.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise _RefusedError(f"{name} has chunks of {dataset.chunks}, beyond {_MAX_CHUNK_BYTES} bytes")


def _stated_columns(root: h5py.Group) -> list[str]:
    """The names of the columns by `metadata/dimension names`, a JSON list; none where there is no such thing."""
    try:
        names = _member(_member(root, "metadata", h5py.Group), "dimension names", h5py.Dataset)
        _check_storage(names, "dimension names")
        if names.size == 0 or names.size > MAX_COLUMNS:
            return []
        first = np.ravel(names[()])[0]
        stated = json.loads(first.decode() if isinstance(first, bytes) else first)
    except Exception:  # as in _videos; the documented order is used then
        return []
    usable = isinstance(stated, list) and len(stated) <= MAX_COLUMNS and all(isinstance(n, str) for n in stated)
    return stated if usable and len(set(stated)) == len(stated) else []


def main(path: str) -> int:
    """Write the arrays of `read` to standard output as one .npz."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        arrays = read(path)
    except Exception as error:  # whatever the library says of a file that is none
        reason = str(error) if isinstance(error, _RefusedError) else f"{type(error).__name__}: {error}"
        sys.stderr.write(reason)
        return REFUSED
    packed = BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    sys.stdout.buffer.write(packed.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
