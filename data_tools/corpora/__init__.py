"""One reader per release: the tree on disk becomes utterances and rejects. Text parsing only; no media is opened."""
