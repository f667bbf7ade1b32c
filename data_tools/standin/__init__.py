"""Stand-in releases in the real on-disk layouts, from photographs and a speech synthesiser."""
