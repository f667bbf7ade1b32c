"""What a run looks at in single utterances."""
