"""Label files of the CMU SDK (.csd): HDF5 tables by video, e.g. CMU_MOSEI_Labels.csd."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.corpora import csd_child
from data_tools.errors import DataError
from data_tools.impostor import check_genuine
from data_tools.processes import read_apart

TIME_LIMIT_S = 120.0
_MAX_FILE_BYTES = 512 * 2**20  # CMU_MOSEI_Labels.csd has 23 MB


@dataclass(frozen=True)
class Csd:
    """A label file.

    columns: names of the D columns as the file states them; empty where it states none.
    features: video id -> (n, D) float64. intervals: video id -> (n, 2) float64, start and end in seconds.
    problems: video id -> why its rows cannot be used.
    """

    path: Path
    columns: tuple[str, ...]
    features: dict[str, np.ndarray]
    intervals: dict[str, np.ndarray]
    problems: dict[str, str]


def read_csd(path: Path, time_limit_s: float = TIME_LIMIT_S) -> Csd:
    """The tables of a .csd file, read by h5py in a process of its own, which may crash or hang on a damaged one.

    Links and values in other files, odd shapes, and more than 100,000 videos or 10,000 rows a video are refused.

    Raises:
        DataError: not HDF5, damaged, without the groups of a label file, or beyond a limit.
    """
    try:
        size = path.stat().st_size
        check_genuine(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > _MAX_FILE_BYTES:
        raise DataError(f"{path} has {size} bytes; label files have some MB, the limit is {_MAX_FILE_BYTES}")
    arrays = _in_a_process(path.absolute(), time_limit_s)
    about = json.loads(arrays["about"].tobytes())
    ends = np.cumsum(arrays["counts"])[:-1]
    split = {name: np.split(arrays[name], ends) for name in ("features", "intervals")}
    return Csd(
        path=path,
        columns=tuple(about["columns"]),
        features=dict(zip(about["videos"], split["features"], strict=False)),
        intervals=dict(zip(about["videos"], split["intervals"], strict=False)),
        problems=about["problems"],
    )


def _in_a_process(path: Path, time_limit_s: float) -> dict[str, np.ndarray]:
    """Result of `csd_child.read` for `path`."""
    problem = f"{path} cannot be used as a label file (HDF5 of the CMU SDK)"
    output = read_apart(csd_child.__file__, [str(path)], problem, time_limit_s, {"HDF5_PLUGIN_PATH": os.devnull})
    with np.load(io.BytesIO(output), allow_pickle=False) as packed:
        return {name: packed[name] for name in packed.files}
