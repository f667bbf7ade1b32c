"""Types that the CMU-MOSEI readers share: a clip by its number and times, and its labels."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from data_tools.corpora.release import Release

EMOTIONS = ("anger", "disgust", "fear", "happy", "sad", "surprise")
"""The task's names, in MESM's order."""
MAX_EMOTION, MAX_SENTIMENT = 3.0, 3.0


class Segment(NamedTuple):
    """A transcript line. clip: its number, as text. start_s may be below 0."""

    clip: str
    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class ClipLabels:
    """Labels of one clip, or why it has none that can be used.

    emotions: name -> 0.0 or 1.0. sentiment: in [-3, 3] or None. reason: empty, or the reject's code; detail: its
    sentence. source: the label file that is at fault; None where it says nothing of the clip.
    """

    source: Path | None = None
    emotions: dict[str, float] = field(default_factory=dict)
    sentiment: float | None = None
    reason: str = ""
    detail: str = ""


class LeftOver(NamedTuple):
    """Labels that no clip asked for. utterance_id: None where they name no clip."""

    utterance_id: str | None
    source: Path
    reason: str
    detail: str


class LabelFiles(Protocol):
    """The labels of a release, wherever they come from."""

    def by_times(self, video_id: str, segments: Sequence[Segment]) -> Mapping[str, ClipLabels]:
        """Labels of all `segments` by clip number."""

    def by_order(
        self, video_id: str, clips: Collection[str], sentiments: Mapping[str, float]
    ) -> Mapping[str, ClipLabels]:
        """Labels by clip number where no times are known. sentiments: what another table says of some of them."""

    def left_over(self) -> Iterable[LeftOver]:
        """Entries that were not asked for so far."""


def shown(release: Release, path: Path) -> Path:
    """Path that a reject names for a label file: `path`, or the root where the file lies beside the release."""
    return path if path.is_relative_to(release.root) else release.root
