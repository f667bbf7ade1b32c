"""The speech encoder: how long its answer is, sounds of any length, local folders, what isn't a HuBERT."""

import pytest
import torch

from models import ModelError
from models.layers.speech import pretrained_speech


def encoder():
    torch.manual_seed(0)
    return pretrained_speech("tiny").eval()


def packed(*counts):
    values = torch.randn(sum(counts), 1, generator=torch.Generator().manual_seed(0))
    return values, torch.tensor(counts)


def test_a_state_every_320_samples_from_400_on():
    speech = encoder()
    assert speech.shortest == 400
    counts = (400, 719, 720, 16_000, 0, 5)
    with torch.no_grad():
        found = speech(*packed(*counts))
    # 1 + (n - 400) // 320, the receptive field and the step of HuBERT's convolutions; 5 samples are filled up to 400.
    assert found.present.sum(1).tolist() == [1, 1, 2, 49, 0, 1]
    assert (found.values[~found.present] == 0).all()
    assert found.values.shape == (6, 49, 32)


def test_states_are_those_of_the_sound_alone_and_transformers_own():
    speech = encoder()
    values, counts = packed(3000, 900, 400)
    with torch.no_grad():
        found = speech(values, counts)
        for i, wave in enumerate(values.split(counts.tolist())):
            alone = speech.encoder(wave.T).last_hidden_state[0]
            torch.testing.assert_close(found.values[i, : len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_a_hubert_that_norms_over_time_reads_each_sound_alone(tmp_path):
    from transformers import HubertConfig, HubertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    shape = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    torch.manual_seed(0)
    HubertModel(HubertConfig(**sizes, **shape, feat_extract_norm="group")).save_pretrained(tmp_path)
    speech = pretrained_speech(str(tmp_path)).eval()
    values, counts = packed(3000, 900)
    with torch.no_grad():
        found = speech(values, counts)
        alone = speech.encoder(values[3000:].T).last_hidden_state[0]
    torch.testing.assert_close(found.values[1, : len(alone)], alone)
    assert found.present.sum(1).tolist() == [9, 2]
    # No masking of its own, which would need a vector that no gradient reaches here.
    assert "masked_spec_embed" not in dict(speech.encoder.named_parameters())


def test_what_is_not_there_or_not_a_hubert_is_named(tmp_path):
    from transformers import BertConfig, BertModel

    with pytest.raises(ModelError, match="speech_encoder is .*: no such encoder could be read"):
        pretrained_speech(str(tmp_path / "nothing"))
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(**sizes, intermediate_size=8)).save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="model_type is 'bert'; read are hubert; give a HuBERT"):
        pretrained_speech(str(tmp_path / "bert"))


def test_a_damaged_file_is_named(tmp_path):
    encoder().encoder.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    with pytest.raises(ModelError, match=r"its model.safetensors cannot be read"):
        pretrained_speech(str(tmp_path))
