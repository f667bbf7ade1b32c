"""What is said in a film, and when: voice activity, utterances, transcripts."""
