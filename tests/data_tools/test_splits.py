"""Split protocols: the laws each one promises, and lists made by hand."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.errors import DataError
from data_tools.records import Utterance
from data_tools.splits import SPLITS, SplitSpec, assign_splits, shared_between


def utterance(name, dialogue, speaker, session=""):
    return Utterance(name, dialogue, speaker, session, 0.0, 1.0, "", {}, None, "v", "a")


def iemocap(dialogues_each=6, turns=10):
    """Five sessions of two actors, who both speak in every dialogue."""
    return [
        utterance(f"Ses0{s}F_impro{d:02}_{who}{t:03}", f"Ses0{s}F_impro{d:02}", f"Ses0{s}{who}", str(s))
        for s in range(1, 6)
        for d in range(dialogues_each)
        for t in range(turns)
        for who in "FM"
    ]


def groups_of(utterances, result, field):
    found = defaultdict(set)
    for u in utterances:
        found[result.by_id[u.utterance_id]].add(getattr(u, field))
    return found


@pytest.mark.parametrize("spec", ["random", "random:utterance", "session:5", "session:1", "speaker:Ses03M"])
def test_every_utterance_gets_one_split_whatever_the_order(spec):
    utterances = iemocap()
    result = assign_splits(utterances, SplitSpec.parse(spec), 7)
    assert set(result.by_id) == {u.utterance_id for u in utterances}
    assert set(result.by_id.values()) == set(SPLITS)
    assert assign_splits(utterances[::-1], SplitSpec.parse(spec), 7).by_id == result.by_id
    assert not result.rejects


@given(st.lists(st.integers(1, 30), min_size=3, max_size=40), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_random_keeps_dialogues_whole_and_shares_near(sizes, seed):
    utterances = [utterance(f"{d}_{t}", str(d), "s") for d, size in enumerate(sizes) for t in range(size)]
    result = assign_splits(utterances, SplitSpec.parse("random"), seed)
    dialogues = groups_of(utterances, result, "dialogue_id")
    assert sum(len(dialogues[split]) for split in SPLITS) == len(sizes)
    counts = Counter(result.by_id.values())
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert counts[split] > 0
        # A split lacks at most one dialogue, or has at most one too many; two where it gave one to an empty split.
        assert abs(counts[split] - share * len(utterances)) <= 2 * max(sizes)


def test_random_is_drawn_by_the_seed():
    utterances = iemocap()
    draws = [
        tuple(sorted(assign_splits(utterances, SplitSpec.parse("random"), seed).by_id.items())) for seed in range(4)
    ]
    assert len(set(draws)) == 4
    notes = assign_splits(utterances, SplitSpec.parse("random"), 0).notes
    assert len(notes) == 1
    assert notes[0].endswith("speakers in test are in train too")


def test_random_by_utterance_says_what_it_shares():
    utterances = iemocap()
    result = assign_splits(utterances, SplitSpec.parse("random:utterance"), 0)
    counts = Counter(result.by_id.values())
    assert [counts[split] for split in SPLITS] == [420, 60, 120]
    assert any("speakers in test are in train too" in note for note in result.notes)
    assert any("dialogues in test are in train too" in note for note in result.notes)
    assert any("single utterances were drawn" in note for note in result.notes)


def test_session_is_speaker_independent():
    utterances = iemocap()
    result = assign_splits(utterances, SplitSpec.parse("session:4"), 0)
    assert groups_of(utterances, result, "session")["test"] == {"4"}
    speakers = groups_of(utterances, result, "speaker")
    assert not speakers["test"] & (speakers["train"] | speakers["valid"])
    dialogues = groups_of(utterances, result, "dialogue_id")
    assert not dialogues["train"] & dialogues["valid"]
    counts = Counter(result.by_id.values())
    assert counts["test"] == 120
    assert counts["valid"] == pytest.approx(0.2 * 480, abs=20)
    assert result.notes == ["test is session 4; valid is 20 % of the other sessions' dialogues, drawn with seed 0"]


def test_speaker_is_tested_and_the_partner_validates():
    utterances = iemocap()
    result = assign_splits(utterances, SplitSpec.parse("speaker:Ses02F"), 0)
    speakers = groups_of(utterances, result, "speaker")
    assert (speakers["test"], speakers["valid"]) == ({"Ses02F"}, {"Ses02M"})
    assert len(speakers["train"]) == 8
    monologues = [utterance(f"v{d}_{t}", f"v{d}", f"v{d}") for d in range(11) for t in range(4)]
    counts = Counter(assign_splits(monologues, SplitSpec.parse("speaker:v3"), 0).by_id.values())
    assert counts == {"train": 32, "valid": 8, "test": 4}


@pytest.mark.parametrize(
    ("spec", "said"),
    [("session:9", "sessions: 1, 2, 3, 4, 5"), ("speaker:Bob", "speakers: Ses01F"), ("fold:1", "one of random"),
     ("session:", "expected one of"), ("random:", "expected one of"), ("lists:/nowhere", "no such folder")],
)  # fmt: skip
def test_an_impossible_split_says_what_is_possible(spec, said):
    with pytest.raises(DataError, match=said):
        assign_splits(iemocap(), SplitSpec.parse(spec), 0)


def test_too_few_dialogues_are_said():
    one = [utterance(f"d_{t}", "d", "s") for t in range(5)]
    result = assign_splits(one, SplitSpec.parse("random"), 0)
    assert set(result.by_id.values()) == {"train"}
    assert result.notes == ["no utterance is in valid or test: the data are too few for this split"]
    assert assign_splits([], SplitSpec.parse("random"), 0).by_id == {}


def write_lists(folder, names=("train_split.txt", "valid_split.txt", "test_split.txt"), **ids):
    folder.mkdir(exist_ok=True)
    for name, split in zip(names, SPLITS, strict=True):
        (folder / name).write_text("".join(f"{item}\n" for item in ids[split]))


@pytest.mark.parametrize(
    "names", [("train_split.txt", "valid_split.txt", "test_split.txt"), ("train.txt", "dev.txt", "test.txt")]
)
def test_lists_of_utterances_and_of_videos(tmp_path, names):
    data = [utterance(f"{v}_{c}", v, v) for v in ("-a", "b_c", "12") for c in range(3)]
    write_lists(
        tmp_path / "lists", names, train=["-a", "b_c_0", "gone"], valid=["b_c_1", "b_c_1"], test=["12_0", "12_2"]
    )
    (tmp_path / "lists" / "README.md").write_text("train")
    result = assign_splits(data, SplitSpec.parse(f"lists:{tmp_path / 'lists'}"), 0)
    assert result.by_id == {
        "-a_0": "train", "-a_1": "train", "-a_2": "train", "b_c_0": "train", "b_c_1": "valid",
        "12_0": "test", "12_2": "test",
    }  # fmt: skip
    assert [(r.utterance_id, r.reason) for r in result.rejects] == [
        ("b_c_2", "split:not_listed"), ("12_1", "split:not_listed"),
    ]  # fmt: skip
    assert result.notes[:4] == [
        "train list: 3 ids, 1 of them not in the data, e.g. gone",
        "valid list: 1 ids (1 lines repeat one), 0 of them not in the data",
        "test list: 2 ids, 0 of them not in the data",
        "2 utterances are in no list and are left out (reason split:not_listed), e.g. b_c_2",
    ]
    assert result.listed == {"train": 3, "valid": 1, "test": 2}


def test_ids_that_the_release_has_but_cannot_use_are_told_apart(tmp_path):
    write_lists(tmp_path / "l", train=["a_0", "a_1", "gone_0", "v"], valid=["b_0"], test=["c_0"])
    data = [utterance(f"{v}_0", v, v) for v in "abc"]
    notes = assign_splits(data, SplitSpec.parse(f"lists:{tmp_path / 'l'}"), 0, rejected=["a_1", "v_3"]).notes
    assert notes[0] == "train list: 4 ids, 3 of them not in the data, e.g. a_1 (2 are in the release, but rejected)"


def test_lists_below_the_folder_are_those_of_the_data(tmp_path):
    """As MESM's repository has them: a folder with a space in its name, and one folder for each corpus in it."""
    for corpus, names in (("IEMOCAP_split", "abc"), ("MOSEI_split", "xyz")):
        folder = tmp_path / "repository" / "data split" / corpus
        folder.mkdir(parents=True)
        write_lists(folder, train=[f"{names[0]}_0"], valid=[f"{names[1]}_0"], test=[f"{names[2]}_0"])
    data = [utterance(f"{v}_0", v, v) for v in "xyz"]
    for place in ("repository", "repository/data split", "repository/data split/MOSEI_split"):
        result = assign_splits(data, SplitSpec.parse(f"lists:{tmp_path / place}"), 0)
        assert result.by_id == {"x_0": "train", "y_0": "valid", "z_0": "test"}
        assert ("the lists are those of MOSEI_split/" in result.notes) == (not place.endswith("MOSEI_split"))
    strangers = [utterance("s_0", "s", "s")]
    with pytest.raises(DataError, match="IEMOCAP_split/ has 0, MOSEI_split/ has 0; name one"):
        assign_splits(strangers, SplitSpec.parse(f"lists:{tmp_path / 'repository'}"), 0)
    with pytest.raises(DataError, match="that is a file; give the folder"):
        assign_splits(data, SplitSpec.parse(f"lists:{folder / 'train_split.txt'}"), 0)


def test_an_utterances_own_line_wins_over_its_dialogues(tmp_path):
    write_lists(tmp_path / "l", train=["d"], valid=["d_1"], test=["e"])
    data = [utterance(n, n[0], "s") for n in ("d_0", "d_1", "e_0")]
    result = assign_splits(data, SplitSpec.parse(f"lists:{tmp_path / 'l'}"), 0)
    assert result.by_id == {"d_0": "train", "d_1": "valid", "e_0": "test"}
    assert "1 utterances are in one list and their dialogue or video in another: their own holds" in result.notes


def test_lists_that_cannot_work(tmp_path):
    data = [utterance("a", "a", "a")]
    write_lists(tmp_path / "twice", train=["a"], valid=["b"], test=["a"])
    with pytest.raises(DataError, match="1 ids are in two lists, e.g. a"):
        assign_splits(data, SplitSpec.parse(f"lists:{tmp_path / 'twice'}"), 0)
    write_lists(tmp_path / "empty", train=["a"], valid=[], test=["b"])
    with pytest.raises(DataError, match=r"valid_split.txt is empty"):
        assign_splits(data, SplitSpec.parse(f"lists:{tmp_path / 'empty'}"), 0)
    (tmp_path / "empty" / "valid_split.txt").unlink()
    with pytest.raises(DataError, match=r"named by valid, e.g. valid.txt"):
        assign_splits(data, SplitSpec.parse(f"lists:{tmp_path / 'empty'}"), 0)
    write_lists(tmp_path / "double", train=["a"], valid=["c"], test=["b"])
    (tmp_path / "double" / "train.txt").write_text("a\n")
    with pytest.raises(DataError, match="second list for train"):
        assign_splits(data, SplitSpec.parse(f"lists:{tmp_path / 'double'}"), 0)


def test_shared_groups_are_counted_for_each_pair():
    by_id = {"a": "train", "b": "test", "c": "valid", "d": "test"}
    assert shared_between({"a": "x", "b": "x", "c": "y", "d": "y"}, by_id) == {
        "train/valid": 0, "train/test": 1, "valid/test": 1,
    }  # fmt: skip
