"""Who learns and who is tested: every split protocol by name, with its leaks said out loud."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from data_tools.corpora.release import STAGE, is_folder, read_lines, visible
from data_tools.errors import DataError
from data_tools.records import Reject, Utterance

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
SPECS = "random, random:utterance, release, session:K, speaker:ID, lists:FOLDER"
# What may follow the colon where it is one of a few words.
_VALUES = {"random": ("", "utterance"), "release": ("",)}

_RANDOM_SHARES: dict[Split, float] = {"train": 0.7, "valid": 0.1, "test": 0.2}
_VALID_OF_REST: dict[Split, float] = {"train": 0.8, "valid": 0.2}
# What releases, folders and lists call the splits, in small letters.
SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}
# How far below the given folder the lists may lie: MESM's repository has `data split/IEMOCAP_split/`.
_LEVELS = 2


@dataclass(frozen=True)
class SplitSpec:
    """A split protocol as `--split` names it. `str` gives that name back.

    kind: random, release, session, speaker or lists. value: what follows the colon, as `assign_splits` explains.
    """

    kind: str = "random"
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> "SplitSpec":
        """The protocol called `text`.

        Raises:
            DataError: no such protocol.
        """
        kind, _, value = text.partition(":")
        known = value in _VALUES[kind] if kind in _VALUES else kind in ("session", "speaker", "lists") and bool(value)
        if not known or (kind == "session" and not re.fullmatch(r"\w+", value)) or (not value and ":" in text):
            raise DataError(f"split is {text!r}; expected one of {SPECS}")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind

    @property
    def folder_name(self) -> str:
        """The name as that of a folder, e.g. `session-5`; for protocols whose value is a plain name."""
        return f"{self.kind}-{self.value}"

    @property
    def portable(self) -> str:
        """The name without a path of this machine: of lists only their folder's own name."""
        return f"lists:{Path(self.value).name}" if self.kind == "lists" else str(self)


@dataclass(frozen=True)
class SplitResult:
    """by_id: split of each utterance that has one. rejects: the others. notes: what to know about this split.

    listed: how many ids each list holds; empty where the split comes from no lists.
    """

    by_id: dict[str, Split]
    rejects: list[Reject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    listed: dict[Split, int] = field(default_factory=dict)


def assign_splits(
    utterances: Sequence[Utterance], spec: SplitSpec, seed: int, rejected: Collection[str] = ()
) -> SplitResult:
    """Put every utterance into train, valid or test; the same arguments give the same answer on every machine.

    spec:
        random: 70/10/20 % of the utterances, whole dialogues at a time, so that no dialogue is shared.
        random:utterance: 70/10/20 % of single utterances, as in the MESM paper; dialogues and speakers are shared.
        release: the split that the release itself states for each utterance; where it states no valid, that is 20 % of
            its train, whole dialogues at a time.
        session:K: test is session K; valid is 20 % of the other sessions, whole dialogues at a time.
        speaker:ID: test is this speaker; valid is the partner of the same session, else 20 % of the rest.
        lists:FOLDER: text files of utterance, dialogue or video ids, one a line, named by train, valid and test; in
            FOLDER, or up to two levels below it: of several sets of lists, the one that most of the data are in.
    rejected: ids that the release has too, but that cannot be used; only for the notes on lists.

    Raises:
        DataError: unknown session or speaker; a release that states no split; lists that are missing, empty
            or contradict each other.
    """
    if spec.kind == "random" and spec.value:
        result = _random(utterances, seed, lambda utterance: utterance.utterance_id)
        result.notes.append("single utterances were drawn, as in the MESM paper: nothing keeps a dialogue together")
    elif spec.kind == "random":
        result = _random(utterances, seed, lambda utterance: utterance.dialogue_id)
    elif spec.kind == "release":
        result = _by_release(utterances, seed)
    elif spec.kind == "session":
        result = _by_session(utterances, spec.value, seed)
    elif spec.kind == "speaker":
        result = _by_speaker(utterances, spec.value, seed)
    else:
        result = _by_lists(utterances, Path(spec.value), set(rejected))
    result.notes.extend(_leaks(utterances, result.by_id))
    return result


def shared_between(groups: Mapping[str, str], by_id: Mapping[str, Split]) -> dict[str, int]:
    """Groups (speakers, dialogues) with utterances in both of two splits, counted by "train/test" and so on.

    groups: utterance id -> group. by_id: utterance id -> split.
    """
    members: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for utterance_id, split in by_id.items():
        members[split].add(groups[utterance_id])
    return {f"{one}/{other}": len(members[one] & members[other]) for one, other in combinations(SPLITS, 2)}


def _random(utterances: Sequence[Utterance], seed: int, unit: Callable[[Utterance], str]) -> SplitResult:
    return SplitResult(_allocate(utterances, _RANDOM_SHARES, seed, unit))


def _by_release(utterances: Sequence[Utterance], seed: int) -> SplitResult:
    by_id: dict[str, Split] = {u.utterance_id: u.fold for u in utterances if u.fold}
    if utterances and not by_id:
        raise DataError(f"split release: this release states no split of its own; choose another: {SPECS}")
    detail = "the release states no split for it"
    rejects = [
        Reject(u.utterance_id, u.source_video, STAGE, "split:not_listed", detail) for u in utterances if not u.fold
    ]
    train = [utterance for utterance in utterances if utterance.fold == "train"]
    if "valid" in by_id.values() or len({utterance.dialogue_id for utterance in train}) < 2:
        return SplitResult(by_id, rejects)
    note = f"the release states no valid: it is 20 % of its train's dialogues, drawn with seed {seed}"
    return SplitResult(by_id | _rest(train, seed), rejects, [note])


def _by_session(utterances: Sequence[Utterance], session: str, seed: int) -> SplitResult:
    known = sorted({utterance.session for utterance in utterances} - {""})
    if session not in known:
        listed = ", ".join(known) or "none: this corpus has no sessions"
        raise DataError(f"split session:{session}: no utterance of that session; sessions: {listed}")
    rest = [utterance for utterance in utterances if utterance.session != session]
    test: dict[str, Split] = {u.utterance_id: "test" for u in utterances if u.session == session}
    note = f"test is session {session}; valid is 20 % of the other sessions' dialogues, drawn with seed {seed}"
    return SplitResult(test | _rest(rest, seed), notes=[note])


def _by_speaker(utterances: Sequence[Utterance], speaker: str, seed: int) -> SplitResult:
    tested = [utterance for utterance in utterances if utterance.speaker == speaker]
    if not tested:
        known = sorted({utterance.speaker for utterance in utterances})
        listed = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
        raise DataError(f"split speaker:{speaker}: no utterance of that speaker; speakers: {listed}")
    by_id: dict[str, Split] = {utterance.utterance_id: "test" for utterance in tested}
    sessions = {utterance.session for utterance in tested} - {""}
    rest = [utterance for utterance in utterances if utterance.speaker != speaker]
    partners = [utterance for utterance in rest if utterance.session in sessions]
    if partners:
        by_id |= {u.utterance_id: "valid" if u.session in sessions else "train" for u in rest}
        note = f"test is speaker {speaker}; valid is the partner of the same session; train the other sessions"
    else:
        by_id |= _rest(rest, seed)
        note = f"test is speaker {speaker}; valid is 20 % of the other dialogues, drawn with seed {seed}"
    return SplitResult(by_id, notes=[note])


def _rest(utterances: Sequence[Utterance], seed: int) -> dict[str, Split]:
    return _allocate(utterances, _VALID_OF_REST, seed, lambda utterance: utterance.dialogue_id)


def _allocate(
    utterances: Sequence[Utterance], shares: Mapping[Split, float], seed: int, unit: Callable[[Utterance], str]
) -> dict[str, Split]:
    """Units in a drawn order, each to the split that lacks most; no split stays empty where the units suffice."""
    members: dict[str, list[str]] = defaultdict(list)
    for utterance in utterances:
        members[unit(utterance)].append(utterance.utterance_id)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    lacking = {split: share * len(utterances) for split, share in shares.items()}
    chosen: dict[Split, list[str]] = {split: [] for split in shares}
    for name in order:
        split = max(lacking, key=lambda candidate: lacking[candidate])
        chosen[split].append(name)
        lacking[split] -= len(members[name])
    for names in chosen.values():
        richest = max(chosen.values(), key=len)
        if not names and len(richest) > 1:
            smallest = min(richest, key=lambda name: len(members[name]))
            richest.remove(smallest)
            names.append(smallest)
    return {utterance_id: split for split, names in chosen.items() for name in names for utterance_id in members[name]}


def _by_lists(utterances: Sequence[Utterance], given: Path, rejected: set[str]) -> SplitResult:
    known = {u.utterance_id for u in utterances} | {u.dialogue_id for u in utterances}
    folder = _find_lists(given, known)
    listed = _read_lists(folder)
    split_of = {name: split for split, names in listed.items() for name in names}
    by_id: dict[str, Split] = {}
    rejects = []
    contradicted = 0
    for utterance in utterances:
        # An utterance's own id is more exact than that of its dialogue or video.
        own, group = split_of.get(utterance.utterance_id), split_of.get(utterance.dialogue_id)
        split = own or group
        if split:
            by_id[utterance.utterance_id] = split
            contradicted += group is not None and group != split
        else:
            detail = f"neither it nor {utterance.dialogue_id} is in the lists of {folder.name}/"
            rejects.append(Reject(utterance.utterance_id, utterance.source_video, STAGE, "split:not_listed", detail))
    notes = [f"the lists are those of {folder.name}/"] if folder != given else []
    notes += [_list_note(split, names, known, rejected) for split, names in listed.items()]
    if contradicted:
        notes.append(
            f"{contradicted} utterances are in one list and their dialogue or video in another: their own holds"
        )
    if rejects:
        left_out = "utterances are in no list and are left out (reason split:not_listed)"
        notes.append(f"{len(rejects)} {left_out}, e.g. {rejects[0].utterance_id}")
    return SplitResult(by_id, rejects, notes, {split: len(set(names)) for split, names in listed.items()})


def _find_lists(given: Path, known: set[str]) -> Path:
    """`given`, or the folder below it with the lists that hold most of the ids `known`."""
    if given.is_file():
        raise DataError(f"split lists:{given}: that is a file; give the folder that holds the three lists")
    if not given.is_dir():
        raise DataError(f"split lists:{given}: no such folder; expected one with train, valid and test .txt files")
    level = [given]
    for _ in range(_LEVELS + 1):
        found = [folder for folder in level if next(_list_files(folder), None)]
        if found:
            return found[0] if len(found) == 1 else _best_lists(given, found, known)
        level = [path for folder in level for path in sorted(folder.iterdir()) if is_folder(path)]
    return given


def _best_lists(given: Path, folders: Sequence[Path], known: set[str]) -> Path:
    hits = {
        folder: sum(name in known for names in _read_lists(folder).values() for name in names) for folder in folders
    }
    first, second = sorted(folders, key=lambda folder: -hits[folder])[:2]
    if hits[first] == hits[second]:
        named = ", ".join(f"{folder.name}/ has {hits[folder]}" for folder in folders)
        raise DataError(
            f"split lists:{given}: several folders have lists, and of the ids in the data {named}; name one"
        )
    return first


def _list_files(folder: Path) -> Iterator[tuple[Split, Path]]:
    """(split, file) of each text file in `folder` whose name holds one split's word."""
    for path in visible(folder, ".txt").values():
        splits = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", path.stem.lower()) if word in SPLIT_WORDS}
        if len(splits) == 1:
            yield splits.pop(), path


def _read_lists(folder: Path) -> dict[Split, list[str]]:
    """The ids of each list as they stand there, some maybe twice."""
    listed: dict[Split, list[str]] = {}
    for split, path in _list_files(folder):
        if split in listed:
            raise DataError(f"split lists:{folder}: {path.name} is a second list for {split}; keep one")
        listed[split] = _read_list(path)
    missing = [split for split in SPLITS if split not in listed]
    if missing:
        raise DataError(f"split lists:{folder}: no .txt file named by {' or '.join(missing)}, e.g. {missing[0]}.txt")
    counts = Counter(name for names in listed.values() for name in set(names))
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"split lists:{folder}: {len(twice)} ids are in two lists, e.g. {', '.join(sorted(twice)[:3])}")
    return {split: listed[split] for split in SPLITS}


def _read_list(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in read_lines(path) if line.strip()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not names:
        raise DataError(f"{path} is empty; expected one id a line")
    return names


def _list_note(split: Split, names: Sequence[str], known: set[str], rejected: set[str]) -> str:
    once = list(dict.fromkeys(names))
    absent = [name for name in once if name not in known]
    # The release's ids are `<dialogue or video>_<part>`, so this finds the videos of rejected utterances too.
    there = rejected | {name.rpartition("_")[0] for name in rejected}
    note = f"{split} list: {len(once)} ids"
    if len(names) > len(once):
        note += f" ({len(names) - len(once)} lines repeat one)"
    note += f", {len(absent)} of them not in the data"
    if absent:
        unusable = sum(name in there for name in absent)
        note += f", e.g. {absent[0]}" + (f" ({unusable} are in the release, but rejected)" if unusable else "")
    return note


def _leaks(utterances: Sequence[Utterance], by_id: Mapping[str, Split]) -> list[str]:
    """One sentence for each kind of group that train and test share, and one for each empty split."""
    notes = []
    for kind in ("speaker", "dialogue_id"):
        groups = {utterance.utterance_id: getattr(utterance, kind) for utterance in utterances}
        tested = {groups[utterance_id] for utterance_id, split in by_id.items() if split == "test"}
        shared = shared_between(groups, by_id)["train/test"]
        if shared:
            name = kind.removesuffix("_id") + "s"
            notes.append(f"{shared} of the {len(tested)} {name} in test are in train too")
    counts = Counter(by_id.values())
    empty = [split for split in SPLITS if not counts[split]]
    if utterances and empty:
        notes.append(f"no utterance is in {' or '.join(empty)}: the data are too few for this split")
    return notes
