"""Pretrained encoders of transformers: which kinds are read, and their errors turned into ModelError.

A folder or a name may come from a stranger. So its code is never run, only encoders of a few kinds are built, what its
configuration says beside the architecture is dropped, and for a saved run nothing is asked of the network.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from models.errors import ModelError

# Encoders that read tokens alone and consist of their own layers. Others name a further model in their configuration,
# such as the backbone of a detector, which transformers would fetch.
TEXT_TYPES = (
    *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra"),
    *("mpnet", "roberta", "xlm-roberta"),
)
SPEECH_TYPES = ("hubert",)
# What a configuration can hold beside the architecture: how it is run is for us to say.
_NOT_READ = {
    *("attn_implementation", "experts_implementation", "quantization_config", "auto_map", "per_layer_config"),
    *("output_attentions", "output_hidden_states", "return_dict", "name_or_path", "_name_or_path"),
}
# Layers may share their weights, and then their number has no bound in the weights.
_MOST_LAYERS = 256


@contextmanager
def reading(asked: str, choices: str) -> Iterator[None]:
    """For the block that reads an encoder. asked: the setting and its value. choices: what can be given instead.

    Raises:
        ModelError: nothing of that name here or on the hub, or damaged weights.
    """
    try:
        yield
    except ModelError:
        raise
    except SafetensorError as error:
        raise ModelError(f"{asked}: its model.safetensors cannot be read ({error}); copy or fetch it again") from error
    except Exception as error:  # transformers and tokenizers raise all kinds for a damaged file
        raise ModelError(f"{asked}: no such encoder could be read ({_first_line(error)}); give {choices}") from error


@contextmanager
def building(what: str) -> Iterator[None]:
    """For the block that builds an encoder from its saved configuration. what: the beginning of the sentence.

    Raises:
        ModelError: the installed version of transformers cannot build it.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # as in `reading`
        raise ModelError(
            f"{what} cannot be built ({_first_line(error):.200}); install the version of transformers that the model "
            "was saved with"
        ) from error


def read_config(source: str, kinds: Collection[str], offline: bool) -> Any:
    """The configuration of the encoder in the folder `source`, or of that name on the hub; see `plain_config`.

    offline: the network is not asked; what was fetched before is found.

    Raises:
        ModelError: another kind of model, or an adapter, which stands for another model.
    """
    from transformers import PreTrainedConfig

    if (Path(source) / "adapter_config.json").exists():
        raise ModelError(f"{source} holds an adapter of another model, which is not read; give an encoder of its own")
    values, _ = PreTrainedConfig.get_config_dict(source, local_files_only=offline)
    return plain_config(values, kinds)


def plain_config(values: Mapping[str, Any], kinds: Collection[str]) -> Any:
    """The configuration that `values` describe, with nothing in it but the architecture.

    Raises:
        ModelError: a kind of model that is none of `kinds`, or more layers than any has.
    """
    from transformers import CONFIG_MAPPING

    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in kinds:
        raise ModelError(f"model_type is {kind!r:.60}; read are {', '.join(kinds)}")
    layers = values.get("num_hidden_layers")
    if isinstance(layers, int | float) and layers > _MOST_LAYERS:
        raise ModelError(f"num_hidden_layers is {layers!r:.60}; the limit is {_MOST_LAYERS}")
    config_class = CONFIG_MAPPING[kind]
    known = (set(config_class().to_dict()) | {"tokenizer_class"}) - _NOT_READ
    return config_class(**{key: value for key, value in values.items() if key in known and key != "model_type"})


@dataclass(frozen=True)
class Most:
    """Limit for the size of a network: values of its parameters and buffers in all, and how many of these there are."""

    values: int
    tensors: int


def check_size(build: Callable[[], nn.Module], most: Most, what: str) -> None:
    """Refuse to build a network that is larger than `most`, before any memory is taken.

    build: makes it; it is called on the device `meta`, whose tensors have shapes alone. what: names it in the error.

    Raises:
        ModelError: it would be larger.
    """
    values = tensors = 0

    def add(_module: nn.Module, _name: str, value: Any) -> None:
        nonlocal values, tensors
        if isinstance(value, torch.Tensor):
            values, tensors = values + value.numel(), tensors + 1
        if values > most.values or tensors > most.tensors:
            raise ModelError(
                f"{what} describes a network of more than {most.values} values or {most.tensors} tensors, more than "
                "there can be"
            )

    hooks = [register_module_parameter_registration_hook(add), register_module_buffer_registration_hook(add)]
    try:
        with torch.device("meta"):
            build()
    finally:
        for hook in hooks:
            hook.remove()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
