"""Our counts beside the paper's, with figures counted by hand from the architecture."""

import json

import pytest

from pipeline.counting.model import count_model
from pipeline.flops import beside_paper, format_beside


def by_hand(height, width, channels):
    """Multiply-adds of the convolutions of a tower: height and width after the stem's pooling."""
    macs = 4 * height * width * 25 * channels * 64 + 4 * height * width * 9 * 64 * 64
    for size in (64, 128, 256):
        macs += height * width * 9 * (size * 2 * size + 2 * size * 2 * size)
        height, width = height // 2, width // 2
    return macs


FACE, CHUNK = by_hand(24, 24, 3), by_hand(64, 16, 1)


@pytest.fixture(scope="module")
def beside():
    return beside_paper()


def test_the_table_has_our_counts_beside_the_papers(beside):
    dense, *sparse = beside["rows"]
    assert dense["per_face"] == FACE + 512 * 9 * 1024 + 1024 * 64
    assert dense["convolutions"] == 9 * FACE + 12 * CHUNK
    assert (dense["of_fe2e"], dense["paper"]["flops"]) == (1, 8.65e9)
    assert [(row["top_p"], row["paper"]["flops"]) for row in sparse] == [(0.7, 5.18e9), (0.5, 4.34e9)]
    for row in sparse:
        assert row["of_fe2e"] == pytest.approx(row["convolutions"] / dense["convolutions"])
        # New weights attend almost evenly, as the authors' attention does, which never learns.
        assert row["of_fe2e"] == pytest.approx(row["code_of_fe2e"], abs=0.02)
    again = count_model("mesm", {"top_p": 0.5, "backend": "torch"})
    assert sparse[1]["utterance"] == again["utterance"]
    json.dumps(beside, allow_nan=False)


def test_the_table_is_printed_with_its_input_and_the_explanation(beside):
    text = format_beside(beside)
    header, dense, *sparse = text.split("\n")[3:7]
    assert header.split()[:3] == ["model", "one", "face"]
    assert dense.split() == ["fe2e", "482.98M", "845.48M", "14.35G", dense.split()[4], "1.00", "8.65G", "1.00", "1.00"]
    assert [line.split()[-3:] for line in sparse] == [["5.18G", "0.60", "0.54"], ["4.34G", "0.50", "0.36"]]
    assert len({len(line) for line in (header, dense, *sparse)}) == 1
    assert "9 faces, 12 chunks and 20 tokens (a mean utterance of IEMOCAP, 4.5 s)" in text
    assert "untrained attention" in text
    assert text.endswith("\n".join(beside["explanation"]))
