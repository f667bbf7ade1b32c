"""The one error that models raise for what a person can mend."""


class ModelError(ValueError):
    """A setting or a checkpoint that cannot work. The message names it, its value and what was expected."""
