"""Multiply-adds of fusion models against figures counted by hand."""

from pipeline.counting.model import count_model, format_model
from pipeline.counting.noise import STEPS

SIZES = {"text_dim": 300, "audio_dim": 5, "vision_dim": 20, "outputs": 1}


def test_mult_on_unaligned_features_costs_what_a_hand_count_says():
    found = count_model("mult", SIZES)
    text, audio, vision = steps = (STEPS["t"], STEPS["a"], STEPS["v"])
    every = sum(steps)
    # Of a layer: query and output, key and value, feed-forward (4 times as wide), scores and their weighted sum.
    between = 2 * (text * audio + text * vision + audio * vision)
    pairs = 5 * (30 * 30 * (2 + 8) * 2 * every + 30 * 30 * 2 * 2 * every + 2 * 30 * between)
    own = 5 * (60 * 60 * 12 * every + 2 * 60 * sum(n * n for n in steps))
    assert found["utterance"]["fusion"] == pairs + own
    ends = text * 300 * 30 + audio * 5 * 30 + vision * 20 * 30 + 2 * 180 * 180 + 180
    assert found["utterance"]["total"] == pairs + own + ends
    assert found["parameters"] == sum(found["parameters_by_part"].values()) == 1_071_211
    assert found["fusion_parameters"] == found["parameters_by_part"]["fusion"]
    assert "parameters 1,071,211" in format_model(found)


def test_with_towers_it_counts_what_fe2es_towers_cost():
    small = {"text_encoder": "tiny", "modalities": "av"}
    mult = count_model("mult", small | {"frontend": "towers"}, faces=2, chunks=3)
    fe2e = count_model("fe2e", small, faces=2, chunks=3)
    towers = 2 * fe2e["per_face"]["total"] + 3 * fe2e["per_chunk"]["total"]
    assert mult["utterance"]["frontend"] == towers


def test_emt_counts_its_lstms():
    found = count_model("emt", {"size": 16, "heads": 2, "audio_dim": 7, "vision_dim": 9})
    lstms = sum(STEPS[letter] * 4 * 16 * (dim + 16) for letter, dim in (("a", 7), ("v", 9)))
    assert found["utterance"]["encoders"] == lstms


def test_lf_trans_counts_its_encoder_layers():
    found = count_model("lf-trans", SIZES | {"size": 8, "heads": 2, "layers": 3})
    lengths = [1 + STEPS[letter] for letter in "tav"]
    encoders = 3 * (12 * 8 * 8 * sum(lengths) + 2 * 8 * sum(length**2 for length in lengths))
    assert found["utterance"]["encoders"] == encoders
    project = 8 * sum(STEPS[letter] * dim for letter, dim in (("t", 300), ("a", 5), ("v", 20)))
    assert found["utterance"]["total"] == encoders + project + 3 * (8 * 8 + 8)


def test_lf_lstm_counts_both_directions():
    found = count_model("lf-lstm", SIZES | {"size": 16})
    lstms = sum(STEPS[letter] * 2 * 4 * 16 * (dim + 16) for letter, dim in (("t", 300), ("a", 5), ("v", 20)))
    assert found["utterance"]["encoders"] == lstms


def test_a_text_encoder_beside_features_is_counted_by_itself():
    encoder = {"text_frontend": "encoder", "text_encoder": "tiny"}
    found = count_model("mult", SIZES | encoder)
    alone = count_model("mult", SIZES | encoder | {"modalities": "t"})
    assert "50 tokens" in found["input"]
    assert found["utterance"]["text"] == alone["utterance"]["text"] > 0
    assert found["utterance"]["total"] == sum(v for part, v in found["utterance"].items() if part != "total")
