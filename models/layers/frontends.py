"""Sources of a fusion model's sequences: features that were extracted before, or towers over the raw media."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from data_tools.batch import WAVEFORM, Batch
from models.errors import ModelError
from models.layers.padded import Padded, pad
from models.layers.speech import SpeechEncoder
from models.layers.text import TextEncoder
from models.layers.tower import Tower
from models.layers.vgg import DenseStage

# Mean and deviation of a face's pixels, 0 to 255, red, green, blue; mel chunks come standardised.
FACE_MEAN, FACE_DEVIATION = (159.0, 111.0, 102.0), (37.0, 33.0, 32.0)
FACE_SIZE, CHUNK_SIZE = (48, 48), (128, 32)
# Letter of a modality -> its part's name, size of an image, mean and deviation.
IMAGES = {"a": ("mel", CHUNK_SIZE, (0.0,), (1.0,)), "v": ("face", FACE_SIZE, FACE_MEAN, FACE_DEVIATION)}


class FeatureFrontend(nn.Module):
    """The batch's extracted features, padded, and tokens through the text encoder where there is one.

    sizes: features of one step, by modality letter; with an encoder, text has its states' in place of these.
    text: the encoder, kept by the model itself; None where the text is extracted too, or there is none.
    """

    def __init__(self, sizes: Mapping[str, int], text: TextEncoder | None = None) -> None:
        super().__init__()
        self.sizes = dict(sizes) | ({} if text is None else {"t": text.size})
        # A bound method, so that the encoder is no part of this module too.
        self._states: Callable[..., tuple[Tensor, float]] | None = None if text is None else text.states

    def forward(self, batch: Batch) -> dict[str, Padded]:
        """Raises ModelError where the batch has no features of a modality, or others than the model was built for."""
        return {
            letter: pad(*self._checked(batch, letter)) if self._extracted(letter) else self._tokens(batch)
            for letter in self.sizes
        }

    def missing(self, batch: Batch) -> dict[str, Tensor]:
        """(B, L) bool, the steps of a damaged batch that were taken away."""
        return {
            letter: _pad_mask(batch.missing[letter], batch.features[letter].counts)
            if self._extracted(letter)
            else batch.missing["tokens"]
            for letter in self.sizes
        }

    def _extracted(self, letter: str) -> bool:
        return letter != "t" or self._states is None

    def _tokens(self, batch: Batch) -> Padded:
        assert self._states is not None
        return token_states(self._states, batch)

    def _checked(self, batch: Batch, letter: str) -> tuple[Tensor, Tensor]:
        if letter not in batch.features:
            raise ModelError(
                f"frontend is 'features', but these samples have no extracted features of modality {letter!r}; run "
                "`pipeline extract`, leave the letter out of `modalities`, or take `frontend: towers`"
            )
        packed = batch.features[letter]
        if packed.values.shape[1] != self.sizes[letter]:
            setting = {"t": "text_dim", "a": "audio_dim", "v": "vision_dim"}[letter]
            raise ModelError(
                f"{setting} is {self.sizes[letter]}, but the extracted features have {packed.values.shape[1]}; "
                f"set {setting} to that"
            )
        return packed.values, packed.counts


class TowerFrontend(nn.Module):
    """Faces and mel chunks through FE2E's dense towers, tokens through the text encoder: sequences from raw media.

    text: the encoder, kept by the model itself; None without text. width: see Tower; also features of a step.
    """

    def __init__(self, modalities: str, text: TextEncoder | None, width: int) -> None:
        super().__init__()
        self.sizes = {} if text is None else {"t": text.size}
        self._states: Callable[..., tuple[Tensor, float]] | None = None if text is None else text.states
        self.towers = nn.ModuleDict()
        for letter, (name, size, mean, deviation) in IMAGES.items():
            if letter in modalities:
                stages = [DenseStage(width * 2**i, width * 2 ** (i + 1)) for i in range(3)]
                self.towers[name] = Tower(size, width, stages, mean, deviation)
                self.sizes[letter] = width

    def forward(self, batch: Batch) -> dict[str, Padded]:
        """One step a token, a chunk and a face."""
        sequences = {}
        if self._states is not None:
            sequences["t"] = token_states(self._states, batch)
        images = {"a": (batch.chunks, batch.chunk_counts), "v": (batch.faces, batch.face_counts)}
        for letter, (name, *_) in IMAGES.items():
            if letter in self.sizes:
                packed, counts = images[letter]
                sequences[letter] = pad(self.towers[name](packed, None).features, counts)
        return sequences

    def missing(self, batch: Batch) -> dict[str, Tensor]:
        """(B, L) bool, the steps of a damaged batch that were taken away."""
        masks = {
            "t": batch.missing["tokens"],
            "a": _pad_mask(batch.missing["chunks"], batch.chunk_counts),
            "v": _pad_mask(batch.missing["faces"], batch.face_counts),
        }
        return {letter: masks[letter] for letter in self.sizes}


def _pad_mask(mask: Tensor, counts: Tensor) -> Tensor:
    return pad(mask.unsqueeze(1), counts).values.squeeze(2)


class EncoderFrontend(nn.Module):
    """The waveform through a pretrained speech encoder, tokens through the text encoder.

    text, speech: kept by the model itself; None where the modality isn't wanted.
    """

    def __init__(self, text: TextEncoder | None, speech: SpeechEncoder | None) -> None:
        super().__init__()
        encoders = {"t": text, "a": speech}
        self.sizes = {letter: encoder.size for letter, encoder in encoders.items() if encoder is not None}
        # Bound methods, so that the encoders are no parts of this module too.
        self._text: Callable[..., tuple[Tensor, float]] | None = None if text is None else text.states
        self._speech: Callable[..., Padded] | None = None if speech is None else speech.forward

    def forward(self, batch: Batch) -> dict[str, Padded]:
        """One step a token, and every 20 ms of audio. Raises ModelError where the batch has no waveforms."""
        sequences = {}
        if self._text is not None:
            sequences["t"] = token_states(self._text, batch)
        if self._speech is not None:
            if WAVEFORM not in batch.features:
                raise ModelError(
                    "frontend is 'encoders', which reads the sound itself, but these samples have no waveforms; open "
                    "them with UtteranceDataset(waveforms=True)"
                )
            packed = batch.features[WAVEFORM]
            sequences["a"] = self._speech(packed.values, packed.counts)
        return sequences


def token_states(encode: Callable[..., tuple[Tensor, float]], batch: Batch) -> Padded:
    """The batch's tokens as a sequence of what `encode`, a text encoder's `states`, makes of them.

    An utterance without words has no step.
    """
    states, _ = encode(batch.tokens, batch.token_mask)
    real = batch.token_mask & batch.present("t").unsqueeze(1)
    return Padded(states * real.unsqueeze(2), real)
