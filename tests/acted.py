"""Small releases of single clips, in the layouts of RAVDESS, CREMA-D and MER2025: noise that is seen and heard."""

import subprocess

import numpy as np

from data_tools.media.audio import write_wav
from data_tools.media.write import ffmpeg_exe, write_video

SIZE_PX = (64, 48)
RATE_HZ = 16_000


def write_clip(path, seconds=0.6, sound=True, seed=0, fps=10, codec="libx264"):
    """A video of noise, with a sound track of noise where `sound`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    shape = (SIZE_PX[1], SIZE_PX[0], 3)
    frames = (rng.integers(0, 255, shape, np.uint8) for _ in range(round(fps * seconds)))
    wav = path.with_suffix(".tmp.wav")
    if sound:
        write_sound(wav, seconds, seed)
    write_video(path, frames, SIZE_PX, fps, codec, audio=wav if sound else None)
    wav.unlink(missing_ok=True)


def write_sound(path, seconds=0.6, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, round(RATE_HZ * seconds))
    write_wav(path, noise.astype(np.float32), RATE_HZ)


def write_performance(root, name, seconds=0.6, seed=0):
    """RAVDESS: `name` is the last six numbers. Picture with sound, the picture alone and the sound alone."""
    folder = root / f"Actor_{name[-2:]}"
    write_clip(folder / f"01-{name}.mp4", seconds, seed=seed)
    write_clip(folder / f"02-{name}.mp4", seconds, sound=False, seed=seed)
    write_sound(folder / f"03-{name}.wav", seconds, seed)


def write_display(root, name, seconds=0.6, seed=0):
    """CREMA-D: a Flash video of 30 frames a second without sound, as some were before December 2020, and its wav."""
    plain, flash = root / "plain.avi", root / "VideoFlash" / f"{name}.flv"
    write_clip(plain, seconds, sound=False, seed=seed, fps=30, codec="mpeg4")
    flash.parent.mkdir(exist_ok=True)
    subprocess.run([ffmpeg_exe(), "-v", "error", "-i", plain, "-c:v", "flv", flash], check=True)
    plain.unlink()
    write_sound(root / "AudioWAV" / f"{name}.wav", seconds, seed)


def write_film_clip(root, name, emotion, seconds=0.6, seed=0):
    """MER2025: a clip with its sound in a file of its own, a row of its label and one of its text."""
    write_clip(root / "video" / f"{name}.mp4", seconds, seed=seed, fps=25)
    write_sound(root / "audio" / f"{name}.wav", seconds, seed)
    tables = {"track1_train_disdim.csv": "name,discrete,valence", "subtitle_chieng.csv": "name,chinese,english"}
    cells = {
        "track1_train_disdim.csv": f"{name},{emotion},{seed % 3 - 1}",
        "subtitle_chieng.csv": f"{name},好的,All right",
    }
    for table, header in tables.items():
        if not (root / table).is_file():
            (root / table).write_text(f"{header}\n", encoding="utf-8")
        with (root / table).open("a", encoding="utf-8") as file:
            file.write(f"{cells[table]}\n")
