"""A contact sheet of utterances, from frames to the model's input."""
