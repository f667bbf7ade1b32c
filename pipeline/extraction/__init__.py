"""Feature sequences for two-phase models, from raw media or from other people's files."""
