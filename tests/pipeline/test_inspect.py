"""The page of `pipeline inspect`, read back as a browser would and held against the media it was made from."""

import base64
import html.parser
import importlib
import json
import re

import cv2
import numpy as np
import pytest
import skimage.data

from data_tools import mel
from data_tools.errors import DataError
from data_tools.files import write_json
from data_tools.manifest import read_manifest, write_manifest, write_rejects
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from data_tools.records import Clip, Reject
from data_tools.store import DialogueStore, store_path
from pipeline.inspect import inspect
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.report.contact_sheet import WAVE_PX, WIDTH_PX, make_timeline

module = importlib.import_module("pipeline.inspect")  # `pipeline.inspect` is the function

QUIET = Reporter(quiet=True)
EMOTIONS = ("ang", "hap")
PORTRAIT = cv2.resize(skimage.data.astronaut()[:240, 100:460], (180, 120))
RAMP = np.broadcast_to(np.arange(180, dtype=np.uint8)[:, None], PORTRAIT.shape)
BLACK = np.zeros_like(PORTRAIT)
EVIL = "</section><script>alert(1)</script> \"'&<img src=http://example.org/x.png onerror=alert(2)> ${7*7} {{ 7*7 }}"
EVIL_ID = "-x_<b onmouseover=alert(3)>&amp;'\""


class Page(html.parser.HTMLParser):
    """What a browser sees: tags with attributes, text by section, and every address."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.open = [], [""], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.texts.append("")

    def handle_data(self, data):
        self.texts[-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def addresses(self):
        return [attrs[name] for _, attrs in self.tags for name in ("src", "href") if name in attrs]


def clip(name, split="train", dialogue="d", text="so", share=None, **labels):
    files = (f"clips/{dialogue}/{name}.mp4", f"clips/{dialogue}/{name}.wav")
    values = dict.fromkeys(EMOTIONS, 0.0) | labels
    more = ("videos/v.avi", "sound/a.wav", 10.0, share)
    return Clip(name, dialogue, "Ann", "1", split, 12.25, 14.25, text, *files, values, -1.5, *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """face: seen in the first second, not in the second one. black: rejected by stage 2. A third has an evil id."""
    folder = tmp_path_factory.mktemp("data") / "toy"
    pictures = {"face": [PORTRAIT] * 10 + [RAMP] * 10, "black": [BLACK] * 20, "none": [RAMP] * 20}
    for name, frames in pictures.items():
        write_wav(folder / f"clips/d/{name}.wav", (0.3 * np.sin(np.arange(32_000) / 20)).astype(np.float32))
        write_video(folder / f"clips/d/{name}.mp4", frames, (180, 120), 10)
    evil = clip("none", text=EVIL, hap=0.5)
    evil = Clip(**(vars(evil) | {"utterance_id": EVIL_ID}))
    write_manifest(folder, [clip("face", "test", ang=1.0, hap=1 / 3), clip("black", "valid", ang=1.0), evil], EMOTIONS)
    rejects = [
        Reject("gone", "videos/v.avi", "reorganize", "interval:outside", "it ends after <the> end"),
        Reject(None, "labels/x.csv", "reorganize", "labels:unreadable", "no header"),
    ]
    write_rejects(folder, rejects)
    write_json(folder / "dataset.json", {"dataset": "toy", "split": "session:5", "standin": True, "notes": [EVIL]})
    preprocess(PreprocessSettings(data=folder, workers=1), QUIET)
    return folder


def page_of(data, out, *ids, count=12, seed=0):
    result = inspect(data, ids, out, count, seed, QUIET)
    assert result["page"] == str(out)
    return result, Page(out)


def test_the_boxes_and_crops_are_those_of_the_store(data, tmp_path):
    _, page = page_of(data, tmp_path / "p.html", "face")
    features = DialogueStore(store_path(data, "d"))["face"]
    rects = page.all("rect")
    assert [rect["class"] for rect in rects] == ["box face"] * 2 + ["box centre"] * 2
    for rect, box in zip(rects, features.face_box.tolist(), strict=True):
        left, top, side = (float(rect[name]) for name in ("x", "y", "width"))
        assert (left, top, left + side, top + side) == pytest.approx(box, abs=1e-3)
    # The centre of 180 x 120 pixels, counted by hand.
    assert [rects[2][name] for name in ("x", "y", "width", "height")] == ["30.0", "0.0", "120.0", "120.0"]
    assert all(svg["viewbox"] == "0 0 180 120" for svg in page.all("svg")[:4])
    crops = [attrs["src"] for attrs in page.all("img")]
    for uri, crop in zip(crops, features.faces.numpy(), strict=True):
        data_of = np.frombuffer(base64.b64decode(uri.removeprefix("data:image/png;base64,")), np.uint8)
        np.testing.assert_array_equal(cv2.cvtColor(cv2.imdecode(data_of, 1), cv2.COLOR_BGR2RGB), crop)
    frame = page.all("image")[0]["href"].removeprefix("data:image/jpeg;base64,")
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(frame), np.uint8), 1)[:, :, ::-1]
    assert np.abs(shown.astype(int) - PORTRAIT).mean() < 6
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page.source)
    assert [caption.split(" · ")[0] for caption in captions] == ["0.00 s", "0.50 s", "1.00 s", "1.50 s"]
    assert [circle["class"] for circle in page.all("circle")] == ["seen"] * 2 + ["unseen"] * 2
    assert [caption.endswith("no face") for caption in captions] == [False, False, True, True]


def test_everything_that_is_known_of_an_utterance_is_there(data, tmp_path):
    _, page = page_of(data, tmp_path / "p.html", "face")
    text = " ".join(page.texts[1].split())
    parts = ["face", "so", "test", "Ann", "2.000 s", "-1.50", "50.0%", "clips/d/face.mp4", "clips/d/face.wav"]
    parts += ["12.250 s to 14.250 s of videos/v.avi, 10.000 fps", "sound/a.wav"]
    for part in parts:
        assert part in text
    assert '<span class="marked">ang</span>' in page.source
    assert "<span>hap 0.33</span>" in page.source
    assert "stand-in" in page.texts[0]
    assert "session:5" in page.texts[0]


def test_rejects_of_both_stages_say_why(data, tmp_path):
    result, page = page_of(data, tmp_path / "p.html", "gone", "black", "gone")
    assert result["utterances"] == ["gone", "black"]
    gone, black = page.texts[1:]
    assert "interval:outside" in gone
    assert "it ends after <the> end" in gone
    assert "video:blank" in black
    assert "of 255" in black
    assert page.all("rect") == []  # stage 2 chose no face there
    assert len(page.all("figure")) == 4  # and yet the black frames are shown
    assert "labels/x.csv" in page.texts[0]


def test_ids_words_and_notes_stay_text_and_nothing_is_loaded(data, tmp_path):
    result, page = page_of(data, tmp_path / "p.html")
    assert EVIL_ID in result["utterances"]
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "form", "b onmouseover"} == set()
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert all(re.match(r"data:image/(png|jpeg);base64,|#(u\d+|contents)$", address) for address in page.addresses)
    whole = "".join(page.texts)
    assert EVIL in whole
    assert EVIL_ID in whole
    (policy,) = [attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv")]
    assert "default-src 'none'" in policy
    anchors = {attrs["id"] for attrs in page.all("section")}
    links = {attrs["href"][1:] for attrs in page.all("a")}
    assert links == anchors | {"contents"}


def test_without_a_store_it_shows_what_there_is(data, tmp_path):
    bare = tmp_path / "bare"
    (bare / "clips").parent.mkdir()
    (bare / "clips").symlink_to(data / "clips")
    write_manifest(bare, [clip("face", ang=1.0)], EMOTIONS)
    _, page = page_of(bare, tmp_path / "p.html", "face")
    assert "Stage 2 has not finished" in page.texts[0]
    assert "Not preprocessed yet" in page.texts[1]
    assert "pipeline preprocess --data" in page.texts[1]
    assert "not known" in page.texts[1]
    assert [circle["class"] for circle in page.all("circle")] == ["unknown"] * 4
    assert len(page.all("figure")) == 4
    assert page.all("rect") == page.all("img") == []
    assert len(page.all("polygon")) == 1


def test_missing_and_changed_files_are_notes(data, tmp_path):
    copy = tmp_path / "copy"
    for path in [data / "utterances.parquet", data / "store" / "d.safetensors", data / "store" / "store.json"]:
        (copy / path.relative_to(data)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(data)).write_bytes(path.read_bytes())
    write_video(copy / "clips/d/face.mp4", [PORTRAIT] * 8, (180, 120), 10)
    _, page = page_of(copy, tmp_path / "p.html", "face")
    assert "2 sampled frames, the store 4" in page.texts[1]
    assert "no media file" in page.texts[1]  # the wav
    assert page.all("rect") == []


def test_an_unknown_id_names_near_ones(data, tmp_path):
    with pytest.raises(DataError, match="no utterance 'fase'.*'face'"):
        inspect(data, ["face", "fase"], tmp_path / "p.html", 12, 0, QUIET)
    with pytest.raises(DataError, match="'gone'"):
        inspect(data, ["gon"], tmp_path / "p.html", 12, 0, QUIET)
    with pytest.raises(DataError, match="none is like it"):
        inspect(data, ["zzzzzzzzzz"], tmp_path / "p.html", 12, 0, QUIET)
    with pytest.raises(DataError, match="no utterance ''"):
        inspect(data, [""], tmp_path / "p.html", 12, 0, QUIET)
    assert not (tmp_path / "p.html").exists()


def test_a_page_that_cannot_be_written_is_refused_before_the_work(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "make_sheet", lambda *_: pytest.fail("work was done"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "page.html", tmp_path):
        with pytest.raises(DataError, match=f"cannot write {out}: .*; name another file with --out"):
            inspect(data, [], out, 12, 0, QUIET)


def test_the_sample_is_seeded_and_even_and_has_the_worst(tmp_path):
    clips = []
    for i in range(90):
        split = "train" if i < 80 else "valid" if i < 85 else "test"
        label = {"ang": 1.0} if i % 10 else {"hap": 1.0}
        clips.append(clip(f"u{i:02d}", split, share=0.9 if i in (33, 34) else 0.0, **label))
    write_manifest(tmp_path, clips, EMOTIONS)
    first, page = page_of(tmp_path, tmp_path / "a.html", count=6)
    again, _ = page_of(tmp_path, tmp_path / "b.html", count=6)
    other, _ = page_of(tmp_path, tmp_path / "c.html", count=6, seed=1)
    assert first["utterances"] == again["utterances"] != other["utterances"]
    assert first["utterances"][6:] == ["u33", "u34"]
    drawn = read_manifest(tmp_path).set_index("utterance_id").loc[first["utterances"][:6]]
    # 80 of the 90 are train and 81 are ang: by chance alone hardly anything else would come.
    assert drawn["split"].value_counts().min() >= 2
    assert drawn["label_hap"].sum() >= 2
    assert "seed 0" in page.texts[0]
    everything, _ = page_of(tmp_path, tmp_path / "d.html", count=500)
    assert sorted(everything["utterances"]) == [f"u{i:02d}" for i in range(90)]


def test_of_a_long_clip_twelve_frames_are_shown_and_all_are_marked(data, tmp_path):
    write_video(tmp_path / "clips/d/long.mp4", [np.roll(PORTRAIT, i, 1) for i in range(100)], (180, 120), 10)
    write_wav(tmp_path / "clips/d/long.wav", (0.3 * np.sin(np.arange(160_000) / 20)).astype(np.float32))
    write_manifest(tmp_path, [clip("long", ang=1.0)], EMOTIONS)
    _, page = page_of(tmp_path, tmp_path / "p.html", "long")
    assert len(page.all("figure")) == 12
    assert len(page.all("circle")) == 20
    assert "12 of 20 sampled frames" in page.texts[1]


def test_sound_mel_and_frames_share_one_axis():
    """A click at 1.5 s of 2 s lies at three quarters in all three."""
    samples = np.zeros(2 * mel.RATE_HZ, np.float32)
    samples[24_000:24_100] = 0.5
    logmel = np.zeros((160, 128), np.float32)
    logmel[120] = 9.0
    line = make_timeline(samples, logmel, [(0.0, True), (1.5, False)], 2.0)
    points = np.array([[float(v) for v in pair.split(",")] for pair in line.wave.split()])
    loudest = points[points[:, 1].argmin()]
    assert loudest == pytest.approx([0.75 * WIDTH_PX, 0.0], abs=3)
    assert points[:, 1].max() == pytest.approx(WAVE_PX / 2)
    assert line.frames == [(0.0, True), (0.75 * WIDTH_PX, False)]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(line.mel.split(",")[1]), np.uint8), 1)
    column = picture.sum((0, 2)).argmax() + 0.5
    assert line.mel_x + column / picture.shape[1] * line.mel_width == pytest.approx(0.75 * WIDTH_PX, abs=1)
    assert {text: x for x, text in line.ticks}["1"] == pytest.approx(WIDTH_PX / 2)
    empty = make_timeline(samples[:0], None, [], 0.0)
    assert (empty.wave, empty.mel, empty.frames) == ("", None, [])


def test_the_command_takes_ids_that_begin_with_a_dash(data, tmp_path, monkeypatch, capsys):
    from pipeline import cli

    arguments = ["inspect", "--data", str(data), "--out", str(tmp_path / "p.html"), "--json", EVIL_ID, "face"]
    monkeypatch.setattr("sys.argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
        raise SystemExit(0)
    assert not stopped.value.code
    assert json.loads(capsys.readouterr().out)["utterances"] == [EVIL_ID, "face"]
