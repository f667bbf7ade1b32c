"""Records between the stages: an utterance of a release, a clip made of it, and a reject."""

from dataclasses import dataclass
from typing import Literal

LABEL_PREFIX = "label_"
# A label is a share of annotators or a plain 0/1; from half on it counts as "has this emotion".
PRESENT_FROM = 0.5


@dataclass(frozen=True)
class Utterance:
    """One labelled utterance of a raw release, as its reader found it; no media has been opened yet.

    start_s, end_s: seconds in the source video; `end_s` is infinite for "to the end of the file".
    labels: emotion -> value in [0, 1], in the label order of the data set; empty where only sentiment is labelled.
    sentiment: None where the corpus has none.
    source_video, source_audio: paths relative to the release root, with forward slashes; empty for none.
    audio_is_cut: the audio file holds this utterance alone, so it is taken whole (IEMOCAP's sentence wavs).
    half: which half of the picture shows the speaker; None for the whole picture.
    fold: the split that the release itself states; empty where it states none.
    stated_s: seconds that the release says the file lasts; one that is far from it is another recording.
    audio_stream: number of the audio stream in its file, from 0; None for the one that players take.
    """

    utterance_id: str
    dialogue_id: str
    speaker: str
    session: str
    start_s: float
    end_s: float
    text: str
    labels: dict[str, float]
    sentiment: float | None
    source_video: str
    source_audio: str
    audio_is_cut: bool = False
    half: Literal["left", "right"] | None = None
    fold: Literal["", "train", "valid", "test"] = ""
    stated_s: float | None = None
    audio_stream: int | None = None


@dataclass(frozen=True)
class Reject:
    """Something of the release that is not in the data set, and the reason.

    utterance_id: None where a whole file was unreadable; then `source` names it.
    stage: reorganize or preprocess. reason: a short code, e.g. `label:xxx`. detail: one sentence for a person.
    """

    utterance_id: str | None
    source: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Clip:
    """One row of the manifest: an utterance whose clip is on disk. Paths are relative to the data folder.

    clip, wav: empty for an utterance without picture or without sound, whose fps is then 0; both where only extracted
    features were imported, and nothing is known of seconds and frames.

    no_face_share: share of the sampled frames without a face, in [0, 1]; None until stage 2 has looked for them.
    """

    utterance_id: str
    dialogue_id: str
    speaker: str
    session: str
    split: str
    start_s: float
    end_s: float
    text: str
    clip: str
    wav: str
    labels: dict[str, float]
    sentiment: float | None
    source_video: str
    source_audio: str
    fps: float
    no_face_share: float | None = None
