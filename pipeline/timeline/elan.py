"""A film's answer as a file of ELAN, linked with the film: tiers of words, predicted emotions and what was absent.

Segments that overlap stand in tiers of their own, `words-2` and so on: in one tier ELAN has one annotation at a time.
"""

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_tools.files import atomic_path
from pipeline.timeline.answers import predicted_scores

# What XML 1.0 can hold; a text from a transcript may have anything.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# As ELAN itself calls them.
_MIME_TYPES = {
    **{".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".mpg": "video/mpeg"},
    **{".mpeg": "video/mpeg", ".wav": "audio/x-wav"},
}


def write_eaf(target: Path, film: Path, segments: Sequence[Mapping[str, Any]], task: str) -> None:
    """Write the segments of `film` for ELAN, whole or not at all; times are in milliseconds.

    Raises:
        DataError: it cannot be written.
    """
    from pympi import Eaf

    eaf = Eaf(author="emotion-pipeline")
    # The film's time and not that of writing: the same answer is the same file.
    changed_s = min(max(film.stat().st_mtime, 0.0), 2.0**32)
    eaf.adocument["DATE"] = datetime.fromtimestamp(changed_s, UTC).isoformat(timespec="seconds")
    eaf.header = {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"}
    eaf.remove_tier("default")
    # ELAN percent-encodes nothing in these.
    place, folder = readable(film.resolve()), target.parent.resolve()
    relative = readable(Path(os.path.relpath(film.resolve(), folder)))
    kind = _MIME_TYPES.get(film.suffix.lower(), "unknown")
    eaf.add_linked_file(
        f"file:///{place.replace(os.sep, '/').lstrip('/')}", f"./{relative.replace(os.sep, '/')}", mimetype=kind
    )
    ends_ms: list[int] = []
    for segment in segments:
        start_ms, end_ms = (round(1000 * segment[name]) for name in ("start_s", "end_s"))
        end_ms = max(end_ms, start_ms + 1)
        row = next((number for number, end in enumerate(ends_ms) if end <= start_ms), len(ends_ms))
        ends_ms[row : row + 1] = [end_ms]
        said = {
            "words": " ".join(segment["text"].split()),
            "emotion": predicted_scores(segment, task) or "none",
            "absent": "; ".join(segment["absent"]),
        }
        for name, text in said.items():
            tier = name if row == 0 else f"{name}-{row + 1}"
            if tier not in eaf.tiers:
                eaf.add_tier(tier)
            if text:
                eaf.add_annotation(tier, start_ms, end_ms, _NOT_XML.sub("\ufffd", text))
    _sort_slots(eaf)
    eaf.properties = [("lastUsedAnnotationId", len(eaf.annotations))]
    with atomic_path(target) as temporary:
        eaf.to_file(str(temporary))


def _sort_slots(eaf: Any) -> None:
    """Number the time slots in the order of their times, which is what ELAN calls time order."""
    slots = sorted(eaf.timeslots, key=eaf.timeslots.get)
    names = {slot: f"ts{number}" for number, slot in enumerate(slots, start=1)}
    eaf.timeslots = {names[slot]: eaf.timeslots[slot] for slot in slots}
    for annotations, *_ in eaf.tiers.values():
        for key, (start, end, text, picture) in annotations.items():
            annotations[key] = (names[start], names[end], text, picture)


def readable(path: Path) -> str:
    """The path as text, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "replace")
