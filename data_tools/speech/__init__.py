"""Speech of a film and its times: voice activity, utterances, transcripts."""
