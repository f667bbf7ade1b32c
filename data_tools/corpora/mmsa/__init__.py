"""What MMSA hands on: the layout of its cut clips, and its pickles of extracted features."""
