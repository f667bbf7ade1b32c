"""Features of a file that is in no data set, made as those that a run was trained on."""

from torch import Tensor, from_numpy

from data_tools.sequences.scale import FeatureScale
from pipeline.extraction.recipe import Recipe
from pipeline.extraction.sequences import Source, steps_of
from pipeline.extraction.text_steps import token_states
from pipeline.settings import ConfigError
from pipeline.training.features import FeatureUse


class FreshFeatures:
    """Makes the features of one run; use: what it was trained on.

    Raises:
        ConfigError: they cannot be made of a file alone: imported ones, word vectors, one step a word.
    """

    def __init__(self, use: FeatureUse) -> None:
        settings = dict(use.settings)
        if settings.get("imported"):
            raise ConfigError(
                f"the run was trained on imported features ({use.name!r}): they can't be made from a file"
            )
        if settings.pop("word_vectors", False) or settings.get("align") == "words":
            raise ConfigError(
                f"the run was trained on the features {use.name!r}, word vectors or one step a word: a file alone has "
                "neither; train on features that `pipeline extract --features default` makes"
            )
        self.recipe = Recipe.checked(settings, f"the features {use.name!r} of the run")
        self.scale = None if use.scale is None else FeatureScale.from_lists(use.scale)
        self.letters = list(use.sizes)
        self.text = None
        if "t" in self.letters:
            self.text = token_states(self.recipe.text_encoder, self.recipe.max_tokens)

    def make(self, source: Source) -> dict[str, Tensor]:
        """(N, D) float32 by modality letter, on the scale of the run.

        Raises:
            DataError: the sound cannot be read.
        """
        made = steps_of(source, self.recipe, self.text, self.letters)
        features = {letter: from_numpy(steps.values) for letter, steps in made.items()}
        return features if self.scale is None else self.scale(features)
