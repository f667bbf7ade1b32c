"""Published facts of a corpus, from configs/datasets/: numbers to hold beside one's own."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from pipeline.settings import Settings, config_names, load_config

Name = Literal["train", "valid", "test"]
Count = int | dict[str, int]


class PublishedFiles(Settings):
    """One kind of file of a whole copy. paths: patterns below the root, of which the first with a file counts.

    `{session}` in a pattern stands for each session; then `count` has a number for each of them.
    """

    paths: tuple[str, ...] = Field(min_length=1)
    count: Count


class PublishedMedia(Settings):
    """Properties of every source file. picture_px: width and height. fps: to half a frame."""

    picture_px: tuple[int, int] | None = None
    fps: float | None = None
    sound_hz: int | None = None
    channels: int | None = None


class PublishedLabel(Settings):
    """One row of a paper's table: utterances with this label in each split, and means over all three."""

    train: int
    valid: int
    test: int
    words: float | None = None
    seconds: float | None = None


class PublishedSplit(Settings):
    """A split that papers report on.

    ids: numbers of ids in the authors' lists, by which one's own lists are recognised. release: it is the split that
    the release itself states. sentiment: negative, zero and positive utterances.
    """

    name: str
    ids: dict[Name, int] | None = None
    release: bool = False
    utterances: dict[Name, int] = Field({})
    labels: dict[str, PublishedLabel] = Field({})
    sentiment: dict[Name, tuple[int, int, int]] = Field({})


class Published(Settings):
    """The published facts of one corpus.

    language: of its texts, by ISO 639-1.
    utterances: those with a label, of the release or of each session. session_folder: where a session's files lie,
    with `{session}`. labels: utterances of each single label. facts: as `Release.facts`.
    no_person: videos in which nobody is seen.
    missing_rates: of the input, at which papers score; empty where they are the usual 0.1 ... 1.0.
    """

    language: str = "en"
    utterances: Count | None = None
    session_folder: str | None = None
    labels: dict[str, int] = Field({})
    facts: dict[str, dict[str, int]] = Field({})
    files: dict[str, PublishedFiles] = Field({})
    media: PublishedMedia = PublishedMedia()
    no_person: tuple[str, ...] = ()
    missing_rates: tuple[float, ...] = ()
    splits: tuple[PublishedSplit, ...] = ()

    def split(self, spec: str, listed: Mapping[Name, int]) -> PublishedSplit | None:
        """The published split that `--split spec` is, going by the numbers of ids in its lists; None where it is none.

        listed: how many ids each list of `spec` holds; empty where it is not made of lists.
        """
        if spec == "release":
            return next((split for split in self.splits if split.release), None)
        return next((split for split in self.splits if listed and split.ids == dict(listed)), None)

    def merged_labels(self, merge: Mapping[str, str]) -> dict[str, int]:
        """`labels` where some count as others, as the reader's option `merge` says."""
        counts: dict[str, int] = {}
        for label, count in self.labels.items():
            name = merge.get(label, label)
            counts[name] = counts.get(name, 0) + count
        return counts


def total(count: Count) -> int:
    """The number of a whole copy."""
    return count if isinstance(count, int) else sum(count.values())


def published_facts(dataset: str, own: Published | None = None) -> Published:
    """`own`, else what configs/datasets/<dataset>.yaml says is published of that corpus; maybe nothing."""
    if own is None and dataset in config_names("datasets"):
        values = load_config("datasets", dataset).get("published")
        return Published() if values is None else Published.checked(values, f"{dataset}.yaml")
    return own or Published()


# Text encoders of one language that people take; of others nothing is known, and nothing is said.
_LANGUAGES = {
    "minilm": "en",
    "albert-base-v2": "en",
    "bert-base-uncased": "en",
    "bert-base-cased": "en",
    "distilbert-base-uncased": "en",
    "roberta-base": "en",
    "roberta-large": "en",
    "bert-base-chinese": "zh",
}


def language_warning(dataset: str, encoder: str) -> str:
    """Warning that a text encoder reads another language than the texts of a data set have; empty where it does not."""
    texts, reads = published_facts(dataset).language, _LANGUAGES.get(encoder)
    if reads is None or reads == texts:
        return ""
    better = next((name for name, language in _LANGUAGES.items() if language == texts), "an encoder of theirs")
    return f"warning: the texts of {dataset} are {texts}, and text_encoder {encoder} reads {reads}: take {better}"
