"""The only package that starts ffmpeg or opens a video: probe, read frames and sound, write, cut.

Decoding and cutting run in process through PyAV; new videos are written by one ffmpeg process through ffmpeg-python.
Only local files in a known format are opened, whatever their names and their content look like, and none beyond the
limits in source.py, audio.py and index.py.
"""
