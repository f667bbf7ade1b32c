"""Feature sequences for models of two phases: extracted once from clips and store, then only read.

Modality letters are those of the models: t text, a audio, v vision. How features come about is in audio.py, vision.py
and words.py; token states need a network and are made by `pipeline extract`.
"""
