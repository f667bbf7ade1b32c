"""The speech encoder: HuBERT (Hsu et al. 2021), which reads the waveform and gives a state every 20 ms.

`tiny` is a small HuBERT with random weights, for tests and quick trials: it is untrained. Any other name is a local
folder or a model of the Hugging Face hub, fetched only if it isn't in the local cache. Weights are read from
safetensors only, never from a pickle.
"""

from typing import Any

import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.layers.padded import Padded, pad
from models.layers.pretrained import SPEECH_TYPES, Most, building, check_size, plain_config, read_config, reading

# HuBERT's own masking and its skipping of layers are off: masks are drawn in models/layers/masking.py, and a layer that
# is skipped now and then would make a step hang on luck.
_PLAIN: dict[str, Any] = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}


class SpeechEncoder(nn.Module):
    """A HuBERT; packed waveforms -> a sequence of states of `size` features an utterance."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = int(encoder.config.hidden_size)
        # Samples that one state needs at least.
        self.shortest = 1
        for kernel, stride in zip(encoder.config.conv_kernel[::-1], encoder.config.conv_stride[::-1], strict=True):
            self.shortest = (self.shortest - 1) * stride + kernel

    def forward(self, samples: Tensor, counts: Tensor) -> Padded:
        """samples: (S, 1) at 16 kHz, mean 0 and deviation 1 in each utterance. counts: (B,), sums to S.

        A sound that is shorter than one state is filled up with zeros; an utterance without sound has no state.
        """
        waves, lengths = pad(samples, counts).values[..., 0], counts.clamp(min=self.shortest)
        missing = max(0, self.shortest - waves.shape[1])
        waves = nn.functional.pad(waves, (0, missing))
        if self.encoder.config.feat_extract_norm == "group":
            # Its first layer norms over time, the padding too: each alone, so that batch mates change nothing.
            alone = [self._states(wave[None, :n], n[None])[0] for wave, n in zip(waves, lengths, strict=True)]
            states = nn.utils.rnn.pad_sequence(alone, batch_first=True)
        else:
            states = self._states(waves, lengths)
        steps = torch.where(counts > 0, self.steps(lengths), 0)
        present = torch.arange(states.shape[1], device=counts.device) < steps.unsqueeze(1)
        return Padded(states * present.unsqueeze(2), present)

    def steps(self, samples: Tensor) -> Tensor:
        """Number of states for each number of samples, which is at least `shortest`."""
        config = self.encoder.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def _states(self, waves: Tensor, lengths: Tensor) -> Tensor:
        real = torch.arange(waves.shape[1], device=waves.device) < lengths.unsqueeze(1)
        states: Tensor = self.encoder(waves, attention_mask=real.long()).last_hidden_state
        return states


def pretrained_speech(name: str) -> SpeechEncoder:
    """The encoder called `name` with its trained weights (random ones for `tiny`), in float32.

    Raises:
        ModelError: no such encoder here or on the hub, no safetensors or damaged ones, or not a HuBERT.
    """
    from transformers import HubertModel
    from transformers.utils import logging

    if name == "tiny":
        return SpeechEncoder(HubertModel(_tiny_config()))
    logging.disable_progress_bar()
    choices = (
        "tiny, a folder with config.json and model.safetensors, or the name of a HuBERT on the Hugging Face hub "
        "(fetched once, needs the network)"
    )
    with reading(f"speech_encoder is {name!r}", choices):
        try:
            config = read_config(name, SPEECH_TYPES, offline=False)
        except ModelError as error:
            raise ModelError(
                f"speech_encoder is {name!r}: {error}; give a HuBERT such as facebook/hubert-large-ll60k"
            ) from None
        config.update(_PLAIN)
        encoder = HubertModel.from_pretrained(
            name, config=config, use_safetensors=True, dtype=torch.float32, trust_remote_code=False
        )
    return SpeechEncoder(encoder)


def restored_speech(config: dict[str, Any], most: Most) -> SpeechEncoder:
    """The encoder that `config` (a Hugging Face configuration as plain values) describes; its weights are random.

    most: a larger encoder is refused.

    Raises:
        ModelError: no HuBERT that the installed version of transformers can build.
    """
    from transformers import HubertModel

    with building("the saved speech encoder"):
        own = plain_config(config, SPEECH_TYPES)
        check_size(lambda: HubertModel(own), most, "its configuration")
        return SpeechEncoder(HubertModel(own))


def _tiny_config() -> Any:
    """As hubert-large in all but its widths: a state every 320 samples, layer norms before the layers."""
    from transformers import HubertConfig

    return HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **_PLAIN,
    )
