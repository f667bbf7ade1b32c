"""Reader of one's own videos: a folder with a table of utterances, or with one file a clip."""
