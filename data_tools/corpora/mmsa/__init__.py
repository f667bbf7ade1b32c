"""MMSA's releases: the layout of its cut clips, and its pickles of extracted features."""
