"""The only package that starts ffmpeg or opens a video: probe, read frames and sound, write, cut.

Decoding and cutting run in process through PyAV; new videos are written by one ffmpeg process through ffmpeg-python.
Only local files in a known format are opened, whatever their names and their content look like, and none beyond the
limits in source.py, audio.py and index.py.
"""

from data_tools.media.audio import AUDIO_RATE_HZ, audio_duration_s, read_audio, seekable_sound, write_wav
from data_tools.media.cut import END_SLACK_S, Cut, CutOutcome, cut_video
from data_tools.media.frames import read_frames
from data_tools.media.plain import PlainPass, loop_video, transcode
from data_tools.media.source import MAX_DURATION_S, MAX_SIDE_PX, ClipError, MediaInfo, has_audio, probe
from data_tools.media.write import ffmpeg_exe, write_video

__all__ = [
    "AUDIO_RATE_HZ",
    "END_SLACK_S",
    "MAX_DURATION_S",
    "MAX_SIDE_PX",
    "ClipError",
    "Cut",
    "CutOutcome",
    "MediaInfo",
    "PlainPass",
    "audio_duration_s",
    "cut_video",
    "ffmpeg_exe",
    "has_audio",
    "loop_video",
    "probe",
    "read_audio",
    "read_frames",
    "seekable_sound",
    "transcode",
    "write_video",
    "write_wav",
]
