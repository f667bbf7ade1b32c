"""CMU-MOSEI's labels out of a .csd file: which row is which clip, and files that are damaged or mean harm."""

import json
import random
from collections import Counter

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora import csd_child
from data_tools.corpora.csd import read_csd
from data_tools.corpora.readers import read_release
from data_tools.errors import DataError

SIX = ["anger", "disgust", "fear", "happy", "sad", "surprise"]
NAMES = ["sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"]
TRANSCRIPTS, VIDEOS = "Transcript/Segmented/Combined", "Videos/Full/Combined"
NONE = (0.0,) * 7


def write_csd(path, rows, names=NAMES, root="All Labels", dtype="float64"):
    """rows: video -> [(start, end, values)] in the order of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group(f"{root}/data")
        for video, found in rows.items():
            group = data.create_group(video)
            group["features"] = np.array([values for _, _, values in found], dtype=dtype)
            group["intervals"] = np.array([(start, end) for start, end, _ in found], dtype=dtype)
        if names is not None:
            file[f"{root}/metadata/dimension names"] = [json.dumps(names)]
    return path


def make_zip(root, videos):
    """videos: video -> {clip: (start, end)}."""
    for folder in (TRANSCRIPTS, VIDEOS):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for video, clips in videos.items():
        lines = [f"{video}___{clip}___{start}___{end}___Text {clip}.\n" for clip, (start, end) in clips.items()]
        (root / TRANSCRIPTS / f"{video}.txt").write_text("".join(lines))
        (root / VIDEOS / f"{video}.mp4").touch()
    return root


def make_mmsa(root, videos):
    """videos: video -> {clip: sentiment}."""
    lines = ["video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"]
    for video, clips in videos.items():
        (root / "Raw" / video).mkdir(parents=True, exist_ok=True)
        for clip, sentiment in clips.items():
            (root / "Raw" / video / f"{clip}.mp4").touch()
            lines.append(f"{video},{clip},Text {clip}.,{sentiment},,,,,train\n")
    (root / "label.csv").write_text("".join(lines))
    return root


def one(name, value=1.0, sentiment=0.0):
    """Values of a row, in the file's order."""
    return (sentiment, *(value if name == known else 0.0 for known in NAMES[1:]))


def found(release):
    """Clip -> its emotions."""
    return {u.utterance_id: {name for name, value in u.labels.items() if value} for u in release.utterances}


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_are_found_by_their_times(tmp_path, dtype):
    rng = random.Random(3)
    times = {
        str(clip): (round(7 * clip + rng.random(), 9), round(7 * clip + 6 + rng.random(), 9)) for clip in range(14)
    }
    truth = {clip: rng.choice(SIX) for clip in times}
    rows = [(*times[clip], one(truth[clip])) for clip in rng.sample(sorted(times), 14)]  # in no order at all
    write_csd(make_zip(tmp_path / "Raw", {"v": times}) / "CMU_MOSEI_Labels.csd", {"v": rows}, dtype=dtype)
    release = read_release("mosei", tmp_path, SIX)
    assert not release.rejects
    assert found(release) == {f"v_{clip}": {emotion} for clip, emotion in truth.items()}
    assert "labels are those of CMU_MOSEI_Labels.csd" in release.notes
    assert "the tree is that of CMU_MOSEI.zip" in release.notes


def test_times_that_no_row_or_two_rows_have(tmp_path):
    times = {"0": (0.0, 1.0), "1": (1.0, 2.0), "2": (2.0, 3.0)}
    rows = [(0.0, 1.0, one("sad")), (1.0, 2.0, one("sad")), (1.0, 2.0, one("fear")), (2.0, 3.001, one("sad"))]
    write_csd(make_zip(tmp_path, {"v": times, "w": times}) / "CMU_MOSEI_Labels.csd", {"v": rows, "x": rows[:1]})
    release = read_release("mosei", tmp_path, SIX)
    assert found(release) == {"v_0": {"sad"}}
    assert reasons(release) == {
        ("v_1", "labels:ambiguous"): 1, ("v_2", "unlabelled"): 1, **{(f"w_{i}", "unlabelled"): 1 for i in range(3)},
        ("v[1]", "no_transcript"): 1, ("v[2]", "no_transcript"): 1, ("v[3]", "no_transcript"): 1,
        ("x[0]", "no_transcript"): 1,
    }  # fmt: skip


def test_a_start_below_zero_is_a_rows_time_and_the_clips_zero(tmp_path):
    make_zip(tmp_path, {"v": {"0": (-0.4875, 3.5)}})
    write_csd(tmp_path / "CMU_MOSEI_Labels.csd", {"v": [(-0.4875, 3.5, one("sad"))]})
    (utterance,) = read_release("mosei", tmp_path, SIX).utterances
    assert (utterance.start_s, utterance.end_s) == (0.0, 3.5)


def test_without_times_the_rows_stand_in_the_order_of_the_numbers_as_text(tmp_path):
    clips = [str(clip) for clip in range(13)]
    truth = {clip: SIX[int(clip) % 6] for clip in clips}
    sentiment = {clip: (-1.0, 0.5, 0.0)[int(clip) % 3] for clip in clips}
    as_text = ["0", "1", "10", "11", "12", "2", "3", "4", "5", "6", "7", "8", "9"]
    make_mmsa(tmp_path / "MOSEI", {"v": sentiment})
    path = tmp_path / "MOSEI" / "CMU_MOSEI_Labels.csd"
    write_csd(path, {"v": [(0, 1, one(truth[clip], sentiment=sentiment[clip])) for clip in as_text]})
    release = read_release("mosei", tmp_path, SIX)
    assert not release.rejects
    assert found(release) == {f"v_{clip}": {truth[clip]} for clip in clips}
    assert {u.utterance_id: u.sentiment for u in release.utterances} == {f"v_{c}": s for c, s in sentiment.items()}
    assert "the tree is that of MMSA: cut clips and label.csv" in release.notes
    assert [u.fold for u in release.utterances] == ["train"] * 13
    # The other order gives most clips the labels of another one; the signs of the sentiment tell, where there are any.
    numeric = dict(zip(sorted(clips, key=int), (truth[clip] for clip in as_text), strict=True))
    assert sum(numeric[clip] != truth[clip] for clip in clips) == 11
    write_csd(path, {"v": [(0, 1, one(truth[clip], sentiment=sentiment[clip])) for clip in sorted(clips, key=int)]})
    assert reasons(read_release("mosei", tmp_path, SIX)) == {(f"v_{clip}", "labels:mismatch"): 1 for clip in clips}


def test_without_times_the_numbers_of_clips_and_rows_must_agree(tmp_path):
    root = make_mmsa(tmp_path, {"v": {"0": 1, "1": 1}, "w": {"0": 1, "1": 1}, "x": {"0": 1}, "y": {"0": 1}})
    # One clip of w has no file any more, and is still one of the numbers.
    (root / "Raw" / "w" / "0.mp4").unlink()
    rows = {"v": [(0, 1, one("sad", sentiment=1))], "x": [(0, 1, one("sad", sentiment=1))],
            "w": [(0, 1, one("sad", sentiment=1)), (1, 2, one("fear", sentiment=1))]}  # fmt: skip
    write_csd(root / "CMU_MOSEI_Labels.csd", rows)
    release = read_release("mosei", tmp_path, SIX)
    assert found(release) == {"w_1": {"fear"}, "x_0": {"sad"}}
    assert reasons(release) == {
        ("v_0", "labels:ambiguous"): 1, ("v_1", "labels:ambiguous"): 1, ("w_0", "no_video"): 1,
        ("y_0", "unlabelled"): 1,
    }  # fmt: skip
    assert "1 labels of emotions belong to no clip of label.csv" in release.notes


def test_columns_go_by_their_names_or_by_the_documented_order(tmp_path):
    make_zip(tmp_path, {"v": {"0": (0, 1)}})
    path = tmp_path / "CMU_MOSEI_Labels.csd"
    write_csd(
        path,
        {"v": [(0, 1, (2, 0, 0, 0, 0, 0, -1.5))]},
        ["fear", "anger", "Happiness", "sadness", "surprise", "disgust", "sentiment"],
    )
    (utterance,) = read_release("mosei", tmp_path, SIX).utterances
    assert utterance.labels == {**dict.fromkeys(SIX, 0.0), "fear": 1.0}
    assert utterance.sentiment == -1.5
    for names in (None, ["dim"] * 7, [f"dim_{n}" for n in range(7)], "{"):
        write_csd(path, {"v": [(0, 1, one("disgust", sentiment=2))]}, names)
        release = read_release("mosei", tmp_path, SIX)
        assert found(release) == {"v_0": {"disgust"}}
        assert release.utterances[0].sentiment == 2
        assert any("names no columns" in note for note in release.notes)
    write_csd(path, {"v": [(0, 1, (1, 1))]}, ["sentiment", "sad"])
    with pytest.raises(DataError, match="no columns for all of anger"):
        read_release("mosei", tmp_path, SIX)
    write_csd(path, {"v": [(0, 1, (1, 1))]}, None)
    with pytest.raises(DataError, match="has 2 columns without names"):
        read_release("mosei", tmp_path, SIX)


def test_the_older_pair_of_files(tmp_path):
    times = {"0": (0.5, 1), "1": (1, 2)}
    make_zip(tmp_path / "Raw", {"v": times})
    emotions = [(*times[clip], one(name)[1:]) for clip, name in (("0", "sad"), ("1", "anger"))]
    write_csd(
        tmp_path / "Raw" / "Labels" / "CMU_MOSEI_LabelsEmotions.csd", {"v": emotions}, NAMES[1:], "Emotion Labels"
    )
    release = read_release("mosei", tmp_path, SIX)
    assert found(release) == {"v_0": {"sad"}, "v_1": {"anger"}}
    assert [u.sentiment for u in release.utterances] == [None, None]
    sentiments = [(*times["1"], (2.0,)), (*times["0"], (-1.0,))]
    write_csd(
        tmp_path / "Raw" / "Labels" / "CMU_MOSEI_LabelsSentiment.csd", {"v": sentiments}, ["sentiment"], "Sentiment"
    )
    release = read_release("mosei", tmp_path, SIX)
    assert found(release) == {"v_0": {"sad"}, "v_1": {"anger"}}
    assert [u.sentiment for u in release.utterances] == [-1.0, 2.0]
    assert any(
        note.endswith("CMU_MOSEI_LabelsEmotions.csd and CMU_MOSEI_LabelsSentiment.csd") for note in release.notes
    )
    alone = read_release("mosei", tmp_path, [])
    assert [(u.sentiment, u.labels) for u in alone.utterances] == [(-1.0, {}), (2.0, {})]


def test_values_out_of_range_are_moved_and_counted_and_no_number_is_no_label(tmp_path):
    nan = float("nan")
    values = [(4.0, 3.5, 0, 0, 0, 0, 0), (-9.0, 0, 0, -1, 0, 0, 1 / 3), NONE, (nan, 0, 1, 0, 0, 0, 0),
              (1, nan, 1, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0, float("inf"))]  # fmt: skip
    make_zip(tmp_path, {"v": {str(i): (i, i + 1) for i in range(6)}})
    write_csd(tmp_path / "CMU_MOSEI_Labels.csd", {"v": [(i, i + 1, row) for i, row in enumerate(values)]})
    release = read_release("mosei", tmp_path, SIX)
    assert found(release) == {"v_0": {"happy"}, "v_1": {"fear"}, "v_2": set(), "v_3": {"sad"}}
    assert [u.sentiment for u in release.utterances] == [3.0, -3.0, 0.0, None]
    assert reasons(release) == {("v_4", "unlabelled"): 1, ("v_5", "unlabelled"): 1}
    assert "4 labels of CMU_MOSEI_Labels.csd lay beyond their range and are moved to its end" in release.notes
    assert len(read_release("mosei", tmp_path, []).utterances) == 5  # all but the one without a sentiment


def test_which_labels_are_read(tmp_path):
    root = make_zip(tmp_path / "Raw", {"v": {"0": (0, 1)}})
    for place in (root / "Labels", root, tmp_path / "Labels", tmp_path):
        path = write_csd(place / "CMU_MOSEI_Labels.csd", {"v": [(0, 1, one("sad"))]})
        assert found(read_release("mosei", tmp_path, SIX)) == {"v_0": {"sad"}}
        with pytest.raises(DataError, match=r"no labels: looked for \*.csv in .*Labels"):
            read_release("mosei", tmp_path, SIX, {"labels": "csv"})
        path.unlink()
    with pytest.raises(DataError, match=r"no labels: looked for CMU_MOSEI_Labels.csd in "):
        read_release("mosei", tmp_path, SIX, {"labels": "csd"})
    write_csd(root / "CMU_MOSEI_Labels.csd", {"v": [(0, 1, one("sad"))]})
    columns = [
        "Input.VIDEO_ID",
        "Input.CLIP",
        *(f"Answer.{e}" for e in ("anger", "disgust", "fear", "happiness", "sadness", "surprise")),
    ]
    (root / "Labels" / "batch.csv").write_text(",".join(columns) + "\nv,0,1,0,0,0,0,0\n")
    assert found(read_release("mosei", tmp_path, SIX)) == {"v_0": {"anger"}}
    assert found(read_release("mosei", tmp_path, SIX, {"labels": "csd"})) == {"v_0": {"sad"}}
    with pytest.raises(DataError, match="labels is 'json'; expected one of auto, csv, csd"):
        read_release("mosei", tmp_path, SIX, {"labels": "json"})


def harm(group, kind, path):
    """Replace the features of a video by something that must not be read."""
    if kind == "gone":
        del group["features"]
        return
    good = group["features"][()]
    del group["features"]
    elsewhere = str(path.with_name("elsewhere.h5"))
    if kind == "external link":
        group["features"] = h5py.ExternalLink(elsewhere, "/secret")
    elif kind == "soft link":
        group["features"] = h5py.SoftLink("/All Labels/data/good/features")
    elif kind == "external storage":
        group.create_dataset("features", (2, 7), "float64", external=[(elsewhere, 0, 2 * 7 * 8)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout((2, 7), "float64")
        layout[:] = h5py.VirtualSource(elsewhere, "secret", (2, 7))
        group.create_virtual_dataset("features", layout)
    elif kind == "huge":
        group.create_dataset("features", (10**12, 7), "float64", chunks=(1024, 7), compression="gzip")
    elif kind == "huge chunk":
        group.create_dataset("features", (2, 7), "float64", maxshape=(None, 7), chunks=(2**24, 7), compression="gzip")
    elif kind == "group":
        group.create_group("features")
    else:
        group["features"] = {
            "flat": good.ravel(), "cube": good[None], "wide": np.ones((2, 65)), "longer": np.ones((3, 7)),
            "narrow": np.ones((2, 3)), "texts": np.array([[b"x"] * 7] * 2), "empty": h5py.Empty("float64"),
            "complex": good.astype(complex),
        }[kind]  # fmt: skip


KINDS = ["gone", "external link", "soft link", "external storage", "virtual", "huge", "huge chunk", "group", "flat",
         "cube", "wide", "longer", "narrow", "texts", "empty", "complex"]  # fmt: skip


def test_a_video_that_cannot_be_read_costs_its_own_clips(tmp_path):
    times = {"0": (0, 1), "1": (1, 2)}
    make_zip(tmp_path, {**dict.fromkeys(KINDS, times), "good": times, "fine": times})
    rows = [(0, 1, one("sad")), (1, 2, one("fear"))]
    videos = [*KINDS, "good", "fine", "unasked"]
    path = write_csd(tmp_path / "CMU_MOSEI_Labels.csd", dict.fromkeys(videos, rows))
    with h5py.File(path.with_name("elsewhere.h5"), "w") as file:
        file["secret"] = np.ones((2, 7))
    with h5py.File(path, "r+") as file:
        for kind in KINDS:
            harm(file["All Labels/data"][kind], kind, path)
        harm(file["All Labels/data/unasked"], "gone", path)
    release = read_release("mosei", tmp_path, SIX)
    assert set(found(release)) == {"good_0", "good_1", "fine_0", "fine_1"}
    broken = {(f"{kind}_{clip}", "labels:unreadable"): 1 for kind in KINDS for clip in times}
    assert reasons(release) == {**broken, (None, "labels:unreadable"): 1}
    details = {r.utterance_id: r.detail for r in release.rejects}
    for kind in ("external link", "soft link"):
        assert "'features' is a link to another place" in details[f"{kind}_0"]
    for kind in ("external storage", "virtual"):
        assert "features keeps its values in another file" in details[f"{kind}_0"]


def test_a_file_that_is_no_label_file_is_an_error_that_says_so(tmp_path):
    make_zip(tmp_path, {"v": {"0": (0, 1)}})
    path = tmp_path / "CMU_MOSEI_Labels.csd"
    good = write_csd(path, {f"v{i}": [(0, 1, one("sad"))] for i in range(20)}).read_bytes()
    messages = {b"": "OSError", b"video,clip\n" * 99: "OSError", good[: len(good) // 2]: "truncated"}
    for content, message in messages.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"cannot be used as a label file.*{message}"):
            read_release("mosei", tmp_path, SIX)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["x"] = [1]
        file["All Labels"] = h5py.ExternalLink("elsewhere.h5", "/All Labels")
    with pytest.raises(DataError, match="expected one group with `data` in it.*it holds 'All Labels', 'x'"):
        read_release("mosei", tmp_path, SIX)
    with h5py.File(path, "w") as file:
        file.create_group("All Labels")["data"] = h5py.ExternalLink("elsewhere.h5", "/data")
    with pytest.raises(DataError, match="'data' is a link to another place"):
        read_release("mosei", tmp_path, SIX)
    with pytest.raises(DataError, match=r"gone\.csd cannot be read: No such file"):
        read_csd(tmp_path / "gone.csd")


def test_a_library_that_hangs_or_crashes_on_a_file_takes_nothing_with_it(tmp_path, monkeypatch):
    path = write_csd(tmp_path / "a.csd", {"v": [(0, 1, NONE)]})
    with pytest.raises(DataError, match="took more than 0 s"):
        read_csd(path, time_limit_s=0)
    (tmp_path / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(csd_child, "__file__", str(tmp_path / "crash.py"))
    with pytest.raises(DataError, match=r"broke down on it \(exit status -11\)"):
        read_csd(path)


def test_any_damage_gives_labels_or_an_error(tmp_path):
    good = write_csd(
        tmp_path / "good.csd", {f"v{i}": [(j, j + 1, NONE) for j in range(3)] for i in range(4)}
    ).read_bytes()
    rng = random.Random(8)
    outcomes = Counter()
    for _ in range(10):
        content = bytearray(good)
        for _ in range(rng.choice((1, 3, 30))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path = tmp_path / "damaged.csd"
        path.write_bytes(content)
        try:
            csd = read_csd(path, time_limit_s=10)
        except DataError as error:
            outcomes["cannot be used" in str(error)] += 1
            continue
        assert not set(csd.features) & set(csd.problems)
        assert all(len(csd.features[video]) == len(csd.intervals[video]) for video in csd.features)
        outcomes["read"] += 1
    assert outcomes[False] == 0
    assert outcomes["read"] > 0
    assert outcomes[True] > 0


NUMBERS = st.tuples(st.integers(0, 3), st.integers(0, 8)).flatmap(
    lambda shape: st.sampled_from([np.ones(shape), np.ones(shape, "int8"), np.full(shape, np.nan), np.ones(shape[0])])
)
NODES = st.one_of(NUMBERS, st.sampled_from(["text", "group", "soft", "external"]), st.none())


def put(group, name, node):
    if isinstance(node, np.ndarray) or node == "text":
        group[name] = node
    elif node == "group":
        group.create_group(name)
    elif node == "soft":
        group[name] = h5py.SoftLink("/")
    elif node == "external":
        group[name] = h5py.ExternalLink("/etc/passwd", "/")


@settings(max_examples=50, deadline=None)
@given(
    videos=st.dictionaries(st.sampled_from(["a", "-b", "0", "é", "a b"]), st.tuples(NODES, NODES) | NODES, max_size=5),
    names=st.one_of(NODES, st.lists(st.text(max_size=3), max_size=9).map(json.dumps)),
)
def test_any_tree_of_groups_is_read_or_named_as_a_problem(tmp_path_factory, videos, names):
    path = tmp_path_factory.getbasetemp() / "any.csd"
    with h5py.File(path, "w") as file:
        data = file.create_group("All Labels/data")
        for name, node in videos.items():
            if isinstance(node, tuple):
                group = data.create_group(name)
                put(group, "features", node[0])
                put(group, "intervals", node[1])
            else:
                put(data, name, node)
        there = set(data)
        meta = file.create_group("All Labels/metadata")
        put(meta, "dimension names", names)
        if isinstance(names, str) and names.startswith("["):
            meta["dimension names"] = [names]
    arrays = csd_child.read(str(path))
    about = json.loads(arrays["about"].tobytes())
    assert sorted([*about["videos"], *about["problems"]]) == sorted(there)
    assert len(arrays["features"]) == len(arrays["intervals"]) == arrays["counts"].sum()
    assert arrays["intervals"].shape[1] == 2
    assert not about["columns"] or arrays["features"].shape[1] == len(about["columns"])
