"""Reader of CMU-MOSEI: transcripts, and labels from the annotators' tables, the SDK's label file or MMSA's table."""
