"""The benchmark of the data stages: its parts against hand-made answers, and the whole with tiny sizes."""

import json

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from benchmarks.data.bench_data import bench_data, shortened
from benchmarks.data.detection import FullDetector, decode, detect
from benchmarks.data.jpegs import write_jpegs
from benchmarks.data.memory import _write_release
from benchmarks.data.page import as_markdown
from data_tools.errors import DataError
from data_tools.media.write import write_video
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

QUIET = Reporter(quiet=True)


@pytest.fixture
def video(tmp_path):
    portrait = cv2.resize(skimage.data.astronaut()[:240, 100:460], (180, 120))
    write_video(tmp_path / "a.avi", (np.roll(portrait, i, axis=1) for i in range(12)), (180, 120), 10, "mpeg4")
    return tmp_path / "a.avi"


@pytest.mark.parametrize(("halves", "pictures"), [(True, 24), (False, 12)])
def test_the_published_way_writes_every_frame_or_both_halves_of_it(video, tmp_path, monkeypatch, halves, pictures):
    written, imwrite = [], cv2.imwrite
    monkeypatch.setattr("benchmarks.data.jpegs.cv2.imwrite", lambda *args: written.append(args) or imwrite(*args))
    size = write_jpegs([video], tmp_path, halves)
    assert len(written) == pictures
    assert {picture.shape for _, picture in written} == {(120, 90 if halves else 180, 3)}
    assert size == sum(len(cv2.imencode(".jpg", picture)[1]) for _, picture in written)
    assert list(tmp_path.glob("*.jpg")) == []
    with pytest.raises(DataError, match="cannot write"):
        write_jpegs([video], tmp_path / "nowhere", halves)


def test_decoding_and_full_detection(video):
    (frames,) = decode([video], every_ms=500)
    assert len(frames) == 3
    found = FullDetector(30).detect([*frames, np.zeros_like(frames[0])])
    assert [len(faces.scores) for faces in found] == [1, 1, 1, 0]
    assert FullDetector(30).detect([]) == []


def test_bare_passes_see_every_frame_in_batches_with_the_threads_asked_for():
    seen = []

    class Watched:
        def detect(self, frames):
            seen.append((*frames, torch.get_num_threads()))

    before = torch.get_num_threads()
    detect(Watched(), [[1, 2, 3], [], [4]], batch_frames=2, threads=before + 1)
    assert seen == [(1, 2, before + 1), (3, before + 1), (4, before + 1)]
    assert torch.get_num_threads() == before


def test_a_looped_video_becomes_a_release_of_its_length(tmp_path):
    frames = (np.full((480, 720, 3), 100, np.uint8) for _ in range(30))
    write_video(tmp_path / "a.avi", frames, (720, 480), 15, "mpeg4")
    _write_release(tmp_path / "raw", tmp_path / "a.avi", length_s=30)
    values = load_config("datasets", "iemocap") | {"root": tmp_path / "raw", "out": tmp_path / "data", "workers": 1}
    summary = reorganize(ReorganizeSettings.checked(values, "test"), QUIET)
    assert (summary["kept"], summary["rejected"]) == (3, 0)


def test_the_page_has_every_ratio_and_how_it_was_got():
    where = {"device": "CPU X, 2 cores", "versions": {"torch": "2"}, "date": "2026-01-02", "corpus": "iemocap"}
    ratio = {"work": "reorganize", "unit": "s", "value": 5.04, "how": "ours", "compared_to": "plain"}
    ratio |= {
        "compared_value": 4.0,
        "compared_how": shortened("x" * 700),
        "ratio": 1.26,
        "target": 1.3,
        "source_s": 310.0,
    }
    size = ratio | {"unit": "bytes", "value": 3 * 2**20, "compared_value": 60 * 2**20, "ratio": 0.05}
    faces = {"work": "agreement", "frames": 7, "found_share": 0.5, "full_found_share": 0.5, "mean_overlap": None}
    faces |= {"least_overlap": None, "mean_crop_difference": 0.25}
    waiting = {"work": "waiting for data", "model": "mesm", "share": 0.011}
    page = as_markdown([row | where for row in (ratio, size, faces, waiting)])
    for part in (
        "2026-01-02, CPU X, 2 cores, torch 2. Stand-in material: iemocap 310 s of video.",
        "| reorganize | iemocap | 5.0 s | plain | 4.0 s | 1.26 | 1.3 |",
        "| reorganize | iemocap | 3 MiB | plain | 60 MiB | 0.05 | 1.3 |",
        "| iemocap | 7 | 50.0% | 50.0% |  |  | 0.2500 of 255 |",
        f": {'x' * 600} ... (700 characters)",
        "1.1% of a training step (mesm)",
    ):
        assert part in page


def test_the_page_says_what_the_rates_come_to_on_real_releases():
    where = {"device": "CPU X, 2 cores", "versions": {"torch": "2"}, "date": "2026-01-02", "corpus": "iemocap"}
    row = {"unit": "s", "how": "", "compared_to": "", "compared_value": 1, "compared_how": "", "ratio": 1, "target": 1}
    row |= {"source_s": 100.0, "clip_s": 94.0} | where
    works = {"reorganize": 10.0, "preprocess": 20.0, "disk": 5e6}
    page = as_markdown([row | {"work": work, "value": value} for work, value in works.items()])
    # 9.4 hours are 360 times 94 s.
    assert "| IEMOCAP, six classes | 9.4 | 1.0 h | 2.0 h | 1.8 GB |" in page
    assert "CMU-MOSEI" not in page


@pytest.mark.slow
def test_all_rows_with_tiny_sizes(tmp_path):
    result = bench_data(tmp_path / "out", QUIET, seconds=5, repeats=1, lengths_s=(20, 40))
    rows = json.loads((tmp_path / "out" / "data-cpu.json").read_text())
    assert rows == result["rows"]
    assert (tmp_path / "out" / "data-cpu.md").read_text() == as_markdown(rows)
    compared = {(row["work"], row["compared_to"], row["corpus"]): row for row in rows if "ratio" in row}
    for corpus in ("iemocap", "mosei"):
        for work, other in (
            ("reorganize", "one ffmpeg process"),
            ("preprocess", "decoding + full passes"),
            ("preprocess", "decoding + own passes"),
            ("both stages", "published way"),
            ("disk", "published way"),
        ):
            row = compared.pop((work, other, corpus))
            assert row["ratio"] == pytest.approx(row["value"] / row["compared_value"], rel=1e-4)  # rounded
            assert row["source_s"] >= 5
    assert sorted(work for work, _, _ in compared) == [
        "peak memory of both stages",
        "peak memory of preprocess",
        "peak memory of reorganize",
    ]
    # A machine under load changes times, not these.
    assert all(row["ratio"] < 1.25 for row in compared.values() if row["compared_to"] == "the same on 20 s")
    for row in rows:
        if "found_share" in row:
            assert row["found_share"] == row["full_found_share"] > 0.9
            assert row["least_overlap"] > 0.99
            assert row["mean_crop_difference"] < 0.1
    (waiting,) = [row for row in rows if row["work"] == "waiting for data"]
    assert 0 <= waiting["share"] < 1
