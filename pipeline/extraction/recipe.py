"""Recipe of extracted features; one file in configs/features/ holds one."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.settings import LocalPath, Settings


class Recipe(Settings):
    """Features to make of text (t), audio (a) and vision (v). A run keeps its recipe, for `predict`."""

    modalities: str = Field("tav", pattern=r"^[tav]{1,3}$", description="letters of 'tav', each at most once")
    text_encoder: str = Field("minilm", description="its token states are the text; as a model's setting of that name")
    max_tokens: int = Field(100, ge=3, description="longer texts are cut")
    glove: LocalPath | None = Field(None, description="a GloVe text file: word vectors in place of token states")
    audio: Literal["acoustic", "mel"] = Field(
        "acoustic", description="acoustic: log F0, 20 MFCC, 12 chroma; mel: bands"
    )
    audio_step_ms: float = Field(32.0, ge=5, le=10_000, description="from one step of sound to the next")
    align: Literal["none", "words"] = Field("none", description="words: one step a word, in every modality")
    root: LocalPath | None = Field(None, description="the raw release, for the word times that come with it")

    @model_validator(mode="after")
    def _letters_are_named_once(self) -> Self:
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities is {self.modalities!r}: name each letter once")
        return self

    def what_matters(self) -> dict[str, Any]:
        """The settings that decide what comes out, without the places of this machine."""
        values = self.model_dump(mode="json", exclude={"glove", "root"})
        return values | {"word_vectors": self.glove is not None}
