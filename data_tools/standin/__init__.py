"""Stand-in releases in the real on-disk layouts, from photographs and a speech synthesiser.

They exercise the pipeline where no licensed corpus is at hand; no score on them means anything about people.
"""
