"""The paper's counts searched by brute force, with figures counted by hand from the architecture."""

import pytest
import torch

import models
from benchmarks.paper_counts import explanation, image_counts, sizes_that_give, ways_to_count
from pipeline.counting import published as paper


def by_hand(height, width, channels):
    """(multiply-adds, outputs) of the convolutions of a tower: height and width after the stem's pooling."""
    macs = 4 * height * width * 25 * channels * 64 + 4 * height * width * 9 * 64 * 64
    outputs = 4 * height * width * 64 + 4 * height * width * 64
    for size in (64, 128, 256):
        macs += height * width * 9 * (size * 2 * size + 2 * size * 2 * size)
        outputs += 2 * height * width * 2 * size
        height, width = height // 2, width // 2
    return macs, outputs


FACE, CHUNK = by_hand(24, 24, 3), by_hand(64, 16, 1)


def searched(face, chunk):
    """Every (faces, chunks) up to 40 that rounds to the paper's 8.65."""
    counts = {(i, j): i * face + j * chunk for i in range(41) for j in range(41)}
    return {sizes for sizes, count in counts.items() if f"{count / 1e9:.2f}" == "8.65"}


def found(way):
    return {(faces, chunks) for faces, chunks, _ in ways_to_count()[way]}


def test_an_image_of_each_tower_agrees_with_the_hand_count():
    face, chunk = image_counts()
    assert (face.convolutions, face.outputs) == FACE
    assert (chunk.convolutions, chunk.outputs) == CHUNK
    assert (face.linear, chunk.linear) == (512 * 9 * 1024 + 1024 * 64, 512 * 16 * 1024 + 1024 * 64)
    assert face.convolutions / 1e6 == pytest.approx(478.20, abs=0.005)
    assert chunk.convolutions / 1e6 == pytest.approx(837.03, abs=0.005)
    model = models.build("fe2e", modalities="av")
    kernels = [m for m in model.get_submodule("towers.face").modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(kernel.bias is None for kernel in kernels)  # its place is in batch norm


def test_no_number_of_faces_and_chunks_gives_the_papers_count_by_convolutions():
    assert searched(FACE[0], CHUNK[0]) == found("convolutions") == set()
    twice = "convolutions with two operations a multiply-add"
    assert searched(2 * FACE[0], 2 * CHUNK[0]) == found(twice) == set()
    linear = [count + 512 * sites * 1024 + 1024 * 64 for count, sites in ((FACE[0], 9), (CHUNK[0], 16))]
    assert searched(*linear) == found("convolutions and linear layers") == set()


def test_four_operations_for_every_output_give_it_for_three_samples():
    face, chunk = (macs + 4 * outputs for macs, outputs in (FACE, CHUNK))
    way = "convolutions with bias, batch norm and ReLU for every output"
    assert searched(face, chunk) == found(way) == {(4, 8), (11, 4), (18, 0)}
    assert ways_to_count()[way][0] == (4, 8, 4 * face + 8 * chunk)
    assert (4 * face + 8 * chunk) / 1e9 == pytest.approx(8.649, abs=0.0005)
    assert [name for name, samples in ways_to_count().items() if samples] == [way]


def test_the_search_finds_what_is_there():
    assert sizes_that_give(7e9, 1e9, 2e9) == [
        (1, 3, 7e9),
        (3, 2, 7e9),
        (5, 1, 7e9),
        (7, 0, 7e9),
    ]
    assert sizes_that_give(1e9, 0.999e9, 0.503e9) == [(1, 0, 0.999e9)]  # 1.006 is not 1.00


def test_the_explanation_has_the_figures_that_the_search_found():
    text = " ".join(explanation())
    for part in ("do not agree", "14.83G", "4 and 8 (8.649G), 11 and 4 (8.648G), 18 and 0 (8.647G)"):
        assert part in text
    assert f"{(10 * FACE[0] + 12 * CHUNK[0]) / 1e9:.2f}G" in text
    assert "top_p 0.7: 0.60 in the paper, 0.54 in the code; top_p 0.5: 0.50 in the paper, 0.36 in the code" in text


def test_the_sentences_that_the_product_prints_are_those_of_the_search():
    assert explanation() == list(paper.EXPLANATION)
