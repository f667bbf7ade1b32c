"""Sites on eyes and mouth against a loop, and lifts that are counted by hand."""

import math
from dataclasses import replace

import pytest
import torch

import models
from benchmarks.selection.sites import RADIUS, _lift, is_valid, landmarks_of, lift, on_eyes_or_mouth
from data_tools.dataset import UtteranceDataset
from data_tools.store import DialogueStore, store_path

FACE = torch.tensor([[16.0, 17.0], [33.0, 17.0], [25.0, 27.0], [17.0, 34.0], [33.0, 34.0]])


@pytest.mark.parametrize("size", [24, 12, 6])
def test_the_region_is_that_of_the_loop(size):
    faces = FACE + torch.randn(7, 5, 2, generator=torch.Generator().manual_seed(0)) * 3
    found = on_eyes_or_mouth(faces, size, 48)
    for face, sites in zip(faces.tolist(), found.tolist(), strict=True):
        left, right, _, low, high = face
        middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2]
        reach = RADIUS * math.dist(left, right)
        for y in range(size):
            for x in range(size):
                centre = ((x + 0.5) * 48 / size, (y + 0.5) * 48 / size)
                near = min(math.dist(centre, point) for point in (left, right, low, high, middle)) <= reach
                assert sites[y][x] is near
    assert 0 < found.float().mean() < 0.5


def test_a_face_that_was_not_found_is_not_valid():
    faces = FACE.repeat(3, 1, 1)
    faces[1] = float("nan")
    faces[2] = 0.0
    assert is_valid(faces).tolist() == [True, False, False]


def test_landmarks_come_in_the_order_of_the_faces(toy_corpus, tmp_path):
    dataset = UtteranceDataset(toy_corpus)
    found = landmarks_of(dataset)
    stores = {name: DialogueStore(store_path(toy_corpus, name)) for name in dataset.table["dialogue_id"].unique()}
    expected = [
        stores[row.dialogue_id][row.utterance_id].face_landmarks for row in dataset.table.itertuples(index=False)
    ]
    assert len(found) == sum(len(dataset[i].faces) for i in range(len(dataset)))
    assert torch.equal(found, torch.cat(expected))


def test_lift_is_counted_by_hand():
    active = torch.tensor([[[1, 1, 1, 1], [1, 1, 0, 0]]]).bool()
    region = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 1]]]).bool()
    kept = torch.tensor([[[1, 0, 0, 1], [1, 0, 0, 0]]]).bool()
    assert lift(kept, active, region) == pytest.approx((1 / 3) / (2 / 6))
    assert lift(active, active, region) == 1
    assert lift(kept, active, torch.zeros_like(region)) is None


def test_a_model_that_keeps_everything_looks_nowhere_in_particular():
    torch.manual_seed(0)
    model = models.build("mesm", text_encoder="tiny", width=4, layers=1, modalities="v", top_p=1.0).eval()
    faces = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    asked = [(faces, model.constant_query.expand(4, -1))]
    landmarks = FACE.repeat(4, 1, 1)
    assert _lift(model, asked, landmarks, is_valid(landmarks)) == {"1": 1.0, "2": 1.0, "3": 1.0}


def test_an_attention_that_looks_for_brightness_finds_bright_mouths():
    """Weights by hand: eq. 1 and 2 prefer the larger first channel, and that is made bright at the mouth."""
    torch.manual_seed(0)
    model = models.build("mesm", text_encoder="tiny", width=4, layers=1, modalities="v", top_p=0.05).eval()
    tower = model.towers["face"]
    attention = tower.stages[0].attention
    with torch.no_grad():
        for weight in (attention.of_map.weight, attention.of_map.bias, attention.of_query.weight):
            weight.zero_()
        attention.of_map.weight[0, 0] = 1e-3
        attention.score.weight.zero_()
        attention.score.weight[0, 0] = 1e5
    landmarks = FACE.repeat(2, 1, 1)
    bright = on_eyes_or_mouth(landmarks, 24, 48)

    class Bright(torch.nn.Module):
        def forward(self, images):
            made = stem(images)
            return replace(made, features=bright.unsqueeze(1) + 0 * made.features)

    stem, tower.stem = tower.stem, Bright()
    faces = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    asked = [(faces, model.constant_query.expand(2, -1))]
    found = _lift(model, asked, landmarks, is_valid(landmarks))
    assert found["1"] == pytest.approx(1 / bright.float().mean().item())
