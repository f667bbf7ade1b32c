"""Multiply-adds against figures counted by hand from the architecture."""

import json

import pytest

import models
from models import ModelError
from pipeline.counting import published as paper
from pipeline.counting.model import count_model, count_run, format_model
from pipeline.settings import ConfigError

TINY_TEXT = {"text_encoder": "tiny"}


def _convolution(height, width, kernel, inputs, outputs):
    return height * width * kernel * kernel * inputs * outputs


def _stages(height, width):
    total = 0
    for channels in (64, 128, 256):
        total += _convolution(height, width, 3, channels, 2 * channels)
        total += _convolution(height, width, 3, 2 * channels, 2 * channels)
        height, width = height // 2, width // 2
    return total


@pytest.fixture(scope="module")
def dense():
    return count_model("fe2e", TINY_TEXT)


@pytest.fixture(scope="module")
def sparse():
    return count_model("mesm", {**TINY_TEXT, "top_p": 0.5, "backend": "torch"})


def test_a_face_and_a_chunk_of_the_dense_model(dense):
    face, chunk = dense["per_face"], dense["per_chunk"]
    assert face["stem"] == _convolution(48, 48, 5, 3, 64) + 4 * _convolution(24, 24, 3, 64, 64)
    assert face["stages"] == _stages(24, 24)
    assert face["linear"] == 512 * 3 * 3 * 1024 + 1024 * 64
    assert chunk["stem"] == _convolution(128, 32, 5, 1, 64) + 4 * _convolution(64, 16, 3, 64, 64)
    assert chunk["stages"] == _stages(64, 16)
    assert chunk["linear"] == 512 * 8 * 2 * 1024 + 1024 * 64
    assert face["attention"] == chunk["attention"] == 0


def test_the_dense_model_comes_to_the_published_architecture_s_counts(dense, sparse):
    kinds, names = ("per_face", "per_chunk"), ("convolutions", "linear")
    millions = {(kind, name): dense[kind][name] / 1e6 for kind in kinds for name in names}
    assert millions == pytest.approx(
        {
            ("per_face", "convolutions"): 478.20,
            ("per_face", "linear"): 4.78,
            ("per_chunk", "convolutions"): 837.03,
            ("per_chunk", "linear"): 8.45,
        },
        abs=0.005,
    )
    assert sparse["per_face"]["stem"] / 1e6 == pytest.approx(95.99, abs=0.005)
    assert sparse["per_chunk"]["stem"] / 1e6 == pytest.approx(157.55, abs=0.005)


def test_an_utterance_is_the_sum_of_its_parts(dense):
    whole = dense["utterance"]
    assert whole["face"] == pytest.approx(9 * dense["per_face"]["total"] + dense["sequence"]["face"])
    assert whole["mel"] == pytest.approx(12 * dense["per_chunk"]["total"] + dense["sequence"]["mel"])
    # The tiny encoder: 2 layers, 32 wide, 64 inside; 20 tokens.
    assert whole["text"] == 20 * 2 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 20 * 32)
    assert whole["total"] == whole["face"] + whole["mel"] + whole["text"]
    # One transformer layer: four 64 x 64 projections, two of 64 x 256, two products over 10 positions; four layers.
    assert dense["sequence"]["face"] == 4 * 10 * (4 * 64 * 64 + 2 * 64 * 256 + 2 * 10 * 64)


def test_parameters_are_counted_by_part(dense):
    assert isinstance(dense["parameters"], int)
    assert sum(dense["parameters_by_part"].values()) == dense["parameters"]
    norms = 2 * (5 * 64 + 2 * (128 + 256 + 512))
    kernels = 25 * 3 * 64 + 9 * (4 * 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512)
    linear = (512 * 9 + 1) * 1024 + 1025 * 64
    layer = 4 * (64 * 64 + 64) + 64 * 256 + 256 + 256 * 64 + 64 + 4 * 64
    assert dense["parameters_by_part"]["face"] == norms + kernels + linear + 64 + 4 * layer + 65 * 6


def test_the_sparse_model_does_less_the_smaller_p_is(dense, sparse):
    totals = [
        count_model("mesm", {**TINY_TEXT, "top_p": p, "backend": "torch"}, faces=2, chunks=2)["utterance"]["total"]
        for p in (0.1, 0.4, 0.8)
    ]
    assert totals == sorted(totals)
    assert totals[0] < 0.5 * totals[2]
    assert sparse["utterance"]["total"] < 0.6 * dense["utterance"]["total"]
    # Attention of the first stage sees every site: 64 x 64 + 64 there, and the query once.
    assert sparse["per_face"]["attention"] > 24 * 24 * (64 * 64 + 64) + 64 * 32
    assert sparse["per_face"]["linear"] == dense["per_face"]["linear"]


def test_the_same_seed_counts_the_same(sparse):
    assert count_model("mesm", {**TINY_TEXT, "top_p": 0.5, "backend": "torch"}) == sparse


def test_the_text_says_what_was_counted_and_what_the_paper_says(dense, sparse):
    text = format_model(dense)
    assert "9 faces, 12 chunks and 20 tokens" in text
    assert f"{dense['parameters']:,}" in text
    assert "482.98M" in text
    assert "random" not in text  # nothing of a dense model depends on its input
    for value in (paper.FE2E, *paper.MESM.values()):
        assert f"{value / 1e9:.2f}G" in text
    assert "do not agree" in text
    assert "backend 'torch' on seeded random input with untrained attention" in format_model(sparse)
    json.dumps(sparse, allow_nan=False)


def test_convolutions_are_compared_with_those_of_the_dense_model(dense, sparse):
    assert dense["convolutions"] == {"macs": pytest.approx(9 * 478.20e6 + 12 * 837.03e6, rel=1e-5)}
    macs = 9 * sparse["per_face"]["convolutions"] + 12 * sparse["per_chunk"]["convolutions"]
    assert sparse["convolutions"] == {
        "macs": pytest.approx(macs),
        "of_fe2e": pytest.approx(macs / dense["convolutions"]["macs"]),
    }
    everything = {**TINY_TEXT, "top_p": 1, "width": 8}
    kept = count_model("mesm", everything | {"backend": "dense"}, faces=1, chunks=1)
    assert kept["convolutions"]["of_fe2e"] == 1
    # Over pairs of sites, the zeros around a map are not multiplied.
    pairs = count_model("mesm", everything | {"backend": "torch"}, faces=1, chunks=1)
    assert 0.85 < pairs["convolutions"]["of_fe2e"] < 1
    share = sparse["convolutions"]["of_fe2e"]
    assert f"{share:.2f} of FE2E's on this input (the paper's totals: 0.60 at top_p 0.7, 0.50 at" in format_model(
        sparse
    )


def test_what_a_run_counted_stands_beside(tmp_path):
    model = models.build("mesm", **TINY_TEXT, width=8, layers=1, top_p=0.3).eval()
    with pytest.raises(ConfigError, match="no run at"):
        count_run(tmp_path)
    (tmp_path / "settings.yaml").write_text("train: {}")
    with pytest.raises(ConfigError, match="no finished epoch"):
        count_run(tmp_path)
    columns = "epoch,train_loss,face.macs,mel.macs,text.macs,face.macs.stem,face.share.1,mel.share.1\n"
    rows = "0,0.5,7e9,7e9,7e9,7e9,1.0,1.0\n1,0.4,2e9,3.5e9,1e9,1.5e9,0.25,0.5\n"
    (tmp_path / "log.csv").write_text(columns + rows)
    models.save(model, tmp_path)
    summary = count_run(tmp_path)
    assert summary["run"] == {
        "folder": str(tmp_path),
        "epoch": 1,
        "per_utterance": {"face": 2e9, "mel": 3.5e9, "text": 1e9, "total": 6.5e9},
        "share_of_sites": {"face.share.1": 0.25, "mel.share.1": 0.5},
    }
    assert {key: value for key, value in summary.items() if key != "run"} == count_model("mesm", {}, trained=model)
    text = format_model(summary)
    assert "with trained attention" in text
    assert "training pass of epoch 1" in text
    assert "6.500G   face 2.000G, mel 3.500G, text 1.000G" in text
    assert "sites computed: face.1 25%, mel.1 50%" in text
    json.dumps(summary, allow_nan=False)


def test_absent_modalities_and_empty_inputs_are_left_out():
    assert "text" not in count_model("fe2e", {"modalities": "v"})["utterance"]
    summary = count_model("mesm", TINY_TEXT, faces=0, chunks=1, tokens=2)
    assert summary["per_face"] == {}
    assert format_model(summary)


def test_bad_settings_are_named():
    with pytest.raises(ModelError, match="top_p is 2"):
        count_model("mesm", {"top_p": 2})
