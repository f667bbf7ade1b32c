"""Limit on the index that an MP4 or QuickTime header makes ffmpeg build in memory, checked before ffmpeg opens it.

ffmpeg keeps about 35 bytes for every sample (a picture, a packet of sound) that the header counts, and believes the
count: a file of 1.5 KiB takes 2.8 GB. None of its options limits that. It indexes other containers from what is
really there.

Such a file is a tree of boxes (ISO/IEC 14496-12): a length, four letters, content.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from data_tools.errors import DataError

# Of all tracks together. Four hours of 60 pictures and 94 packets of sound a second are 2.2 million.
MAX_INDEX_ENTRIES = 8_000_000

_BRANCHES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf")
_MAX_DEPTH = 8
# Where in the content of a box the number of samples stands, or in elst the number of edits.
_COUNT_AT = {b"stsz": 8, b"stz2": 8, b"elst": 4, b"trun": 4}


class _Box(NamedTuple):
    """kind: four letters. start, end: its content, in bytes of the file. track: where its `trak` or `traf` begins."""

    kind: bytes
    start: int
    end: int
    track: int


def check_index(path: Path) -> None:
    """Look at the counts in the header of `path`; a file that is not made of boxes passes at once.

    Raises:
        DataError: more than MAX_INDEX_ENTRIES samples, a header packed with zlib (QuickTime could do that; what it
            counts can't be seen, and it may grow a thousandfold), or the file cannot be read.
    """
    tracks: dict[int, list[_Box]] = defaultdict(list)
    try:
        with path.open("rb") as file:
            for box in _leaves(file, 0, path.stat().st_size):
                tracks[box.track].append(box)
            entries = sum(_entries(file, boxes) for boxes in tracks.values())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if any(box.kind == b"cmov" for boxes in tracks.values() for box in boxes):
        raise DataError(f"{path} has a packed header (QuickTime's cmov), which is not read here; convert it")
    if entries > MAX_INDEX_ENTRIES:
        raise DataError(f"{path} has a header that counts {entries} samples; the limit is {MAX_INDEX_ENTRIES}")


def lacks_index(path: Path) -> bool:
    """Return True if `path` is made of boxes, but has none that says what is where: recorders write it at the end.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        kinds = [box.kind for box in _leaves(file, 0, path.stat().st_size)]
    return kinds[:1] in ([b"ftyp"], [b"wide"], [b"mdat"], [b"free"], [b"skip"]) and b"mvhd" not in kinds


def _leaves(file: BinaryIO, start: int, end: int, track: int = 0, depth: int = 0) -> Iterator[_Box]:
    """Boxes without boxes in them, from `start` to `end`."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, kind, content = int.from_bytes(head[:4]), head[4:8], start + 8
        if size == 1:  # the length stands behind the letters
            size, content = int.from_bytes(head[8:]), start + 16
        elif size == 0:  # up to the end
            size = end - start
        if size < content - start:
            return
        stop = min(start + size, end)
        if kind in _BRANCHES and depth < _MAX_DEPTH:
            yield from _leaves(file, content, stop, start if kind in (b"trak", b"traf") else track, depth + 1)
        else:
            yield _Box(kind, content, stop, track)
        start += size


def _entries(file: BinaryIO, boxes: list[_Box]) -> int:
    """Samples that one track makes ffmpeg index, at most: counted by size, by time, and once more for every edit."""
    tables: dict[bytes, list[np.ndarray]] = defaultdict(list)
    for box in boxes:
        if box.kind in _COUNT_AT:
            tables[box.kind].append(_words(file, box, _COUNT_AT[box.kind], 1))
        elif box.kind in (b"stts", b"ctts"):
            tables[box.kind].append(_words(file, box, 8, (box.end - box.start) // 4))
        elif box.kind == b"hdlr":
            tables[box.kind].append(_words(file, box, 8, 1))
    if _is_uncompressed_sound(tables):
        return 0
    total = {kind: sum(int(words[::2].sum()) for words in tables[kind]) for kind in (*_COUNT_AT, b"stts", b"ctts")}
    samples = max(total[b"stsz"] + total[b"stz2"], total[b"stts"], total[b"ctts"])
    return samples * max(1, total[b"elst"]) + total[b"trun"]


def _is_uncompressed_sound(tables: dict[bytes, list[np.ndarray]]) -> bool:
    """Return True if every moment of sound counts as a sample: ffmpeg indexes such a track in larger pieces."""
    handlers, times = tables[b"hdlr"], tables[b"stts"]
    is_sound = any(words.tobytes() == b"soun" for words in handlers)
    return is_sound and bool(times) and all(words[1:].tolist() == [1] for words in times)


def _words(file: BinaryIO, box: _Box, skip: int, count: int) -> np.ndarray:
    """Up to `count` whole numbers of 4 bytes from `skip` bytes into the content of `box`: (N,) big-endian uint32."""
    file.seek(box.start + skip)
    data = file.read(max(0, min(4 * count, box.end - box.start - skip)))
    return np.frombuffer(data[: len(data) // 4 * 4], ">u4")
