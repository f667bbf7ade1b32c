"""Program that reads files with random damage: `python mutations.py COUNT [KIND ...]`, for test_mutations.py.

It makes one small file of each kind, changes a copy of it COUNT times and reads that with everything of ours that reads
such a file. Each reading ends in an answer or in one of our errors, in less than TIME_LIMIT_S and with less than
MEMORY_BYTES more than at the start, or the program ends with a traceback. The last line it prints is JSON: kind ->
[answers, errors].
"""

import json
import pickle
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import models
from data_tools.about import read_dataset_facts, read_store_facts
from data_tools.checksums import checksum_path
from data_tools.corpora.mmsa.features import read_mmsa
from data_tools.corpora.tables import read_table
from data_tools.errors import DataError
from data_tools.manifest import read_manifest, read_rejects, write_manifest, write_rejects
from data_tools.receipts import _parsed, _recorded
from data_tools.records import Clip, Reject
from data_tools.sequences.align import read_words_csv, recognised_from
from data_tools.sequences.steps import untimed
from data_tools.sequences.store import DialogueFeatures, FeatureFacts, read_facts, write_facts
from data_tools.sequences.store import write_dialogue as write_features
from data_tools.speech.transcript import read_transcript
from data_tools.store import EMPTY, DialogueStore, SampleTensors, write_dialogue
from models.checkpoint import read_model
from models.errors import ModelError
from pipeline.run import RunDir
from pipeline.run_data import DataFacts
from pipeline.settings import ConfigError, ModelSpec, read_yaml
from pipeline.stats import stats
from pipeline.training.features import FeatureUse
from pipeline.training.log import TrainLog
from pipeline.training.scoring import task_of_run
from pipeline.training.settings import TrainSettings

TIME_LIMIT_S = 20
MEMORY_BYTES = 1536 * 2**20
LONGEST_ERROR = 4000
EMOTIONS = ["ang", "hap"]
ODD = [None, True, -1, 2.5, "x", [], {}, [[1]], {"x": {"y": []}}, 10**18, "\x1b[2J", "../../x"]
PIECES = [b"[", b"{", b'"', b"\\", b"\0", b"\xff", b"\xed\xa0\x80", b"1e999", b"-", b"&a ", b"*a", b": ", b"\n", b","]
PIECES += [b"9" * 30, b"[" * 2000, b"\\ud800", b"\\u0000", b"NaN", b"../", b"\x1b[31m", b"\r\n", b"00:00:01,000 --> "]


@dataclass
class Target:
    """A small file, and what reads it. of_json: values in it are exchanged too."""

    path: Path
    readers: list[Callable[[], object]]
    of_json: bool = False


class _TooLongError(BaseException):
    """Reading took more than TIME_LIMIT_S."""


def targets(folder: Path) -> dict[str, list[Target]]:
    """Every kind of small file, sound."""
    torch.manual_seed(0)
    noise = np.random.default_rng(0)
    data, run = folder / "data", RunDir(folder / "run")
    clips = [
        Clip(f"u{i}", f"d{i % 2}", "s", "1", "train", 0.0, 1.5, f"words {i}", "c.mp4", "c.wav",
             {"ang": 1.0, "hap": 0.0}, 0.5, "v", "a", 25.0)
        for i in range(4)
    ]  # fmt: skip
    write_manifest(data, clips, EMOTIONS)
    write_rejects(data, [Reject("x", "y", "reorganize", "label:xxx", "not used")])
    (data / "dataset.json").write_text(json.dumps({"dataset": "toy", "split": "random", "standin": True, "notes": ["n"],
                                                   "merged_labels": {"exc": "hap"}, "listed_ids": {}}))  # fmt: skip
    store = data / "store" / "d0.safetensors"
    some = SampleTensors(
        torch.zeros(1, 48, 48, 3, dtype=torch.uint8), torch.zeros(1), torch.zeros(1), torch.zeros(1, 5, 2),
        torch.zeros(1, 4), torch.zeros(40, 128, dtype=torch.float16),
    )  # fmt: skip
    write_dialogue(store, {"u0": some, "u2": EMPTY}, "f", {"u4": ("clip:unreadable", "x")})
    (data / "store" / "store.json").write_text(
        json.dumps({"settings": {"faces": {"margin_px": 2}, "mel": {"n_fft": 1024}}, "fingerprints": {"d0": "f"}})
    )
    steps = {letter: untimed(noise.normal(size=(2, 3)).astype(np.float32)) for letter in "tav"}
    features = data / "features" / "default" / "d0.safetensors"
    write_features(features, {"u0": steps, "u2": steps}, dict.fromkeys("tav", 3), "f")
    write_facts(data, FeatureFacts("default", dict.fromkeys("tav", 3), {"audio": "mel"}, {"d0": "f"}, None, {}))
    for path in (store, features):
        checksum_path(path).unlink()  # with it every change is found before anything is read
    scale = {part: {letter: [1.0] * 3 for letter in "tav"} for part in ("mean", "deviation")}
    facts = DataFacts(
        "data", EMOTIONS, 4, {"ang": 3, "hap": 1}, {"ang": 1.0, "hap": 3.0}, "f", {"dataset": "toy"},
        {"faces": {"margin_px": 2}, "mel": {}}, {"mean": 0.5}, {"train": 0},
        FeatureUse("default", dict.fromkeys("tav", 3), {"audio": "mel"}, scale),
    )  # fmt: skip
    settings = TrainSettings(data=data, out=run.path, task="multi-label", loss="bce", monitor="f1")
    models.save(models.build("fe2e", outputs=2, width=4, layers=1, text_encoder="tiny"), run.path)
    save_file(load_file(run.model), run.model)  # without their checksum, for the same reason
    run.write_start(settings, {"name": "fe2e", "width": 4, "layers": 1}, facts, ["u0"], ["u1"])
    run.write_thresholds(dict.fromkeys(EMOTIONS, 0.5), "valid", "by F1")
    run.note_environment(torch.device("cpu"), 1)
    run.log.write_text("epoch,train_loss,valid_f1\n1,0.5,0.25\n2,0.4,\n")
    receipt = folder / "clips" / "receipt.json"
    receipt.parent.mkdir()
    receipt.write_text(json.dumps({"fingerprint": "f", "files": {"a.mp4": 3}, "made": [], "rejects": [], "notes": []}))
    rows = 'video,start,end,text,label\na.mp4,0,1.5,"one, two",happy\nb.mp4,1,2,drei,sad\n'
    (folder / "table.csv").write_text(rows)
    (folder / "table.json").write_text('[{"video": "a.mp4", "text": "x"}, {"video": "b", "text": "é", "start": 1.5}]')
    (folder / "words.csv").write_text("word,start_s,end_s\nhello,0.1,0.5\nyou,0.6,0.9\n")
    (folder / "film.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,500\nHello <i>you</i>\n\n2\n00:00:03,000 --> 00:00:04,000\nBye\n"
    )
    transcripts = [folder / f"film.{suffix}" for suffix in ("srt", "vtt", "ass", "json", "TextGrid", "eaf", "csv")]
    transcripts[1].write_text(
        "WEBVTT\n\nNOTE x\n\n00:01.000 --> 00:02.500\nHello <b>you</b>\n\n00:03.000 --> 00:04.000\nBye"
    )
    transcripts[2].write_text(
        "[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
        "Dialogue: 0,0:00:01.00,0:00:02.00,Default,{\\an8}Hello\n"
    )
    transcripts[3].write_text('{"segments": [{"text": "Hello", "start": 1.0, "end": 2.5}]}')
    transcripts[4].write_text(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n1\n"IntervalTier"\n"words"\n0\n2\n1\n'
        '0.5\n1.5\n"Hello"\n'
    )
    transcripts[5].write_text(
        '<ANNOTATION_DOCUMENT><TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="1"/><TIME_SLOT TIME_SLOT_ID="b"/>'
        '</TIME_ORDER><TIER TIER_ID="words"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="c" TIME_SLOT_REF1="a" '
        'TIME_SLOT_REF2="b"><ANNOTATION_VALUE>Hello</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>'
        "</ANNOTATION_DOCUMENT>"
    )
    transcripts[6].write_text("start;end;text\n0,5;1:02.5;Hello\n63;64;Bye\n")
    part = {"id": ["v$_$1", "v$_$2"], "raw_text": np.array(["a", "b"]), "audio": noise.normal(size=(2, 3, 2)),
            "audio_lengths": [2, 3], "regression_labels": np.array([1.0, -1.0], np.float32)}  # fmt: skip
    (folder / "mosi.pkl").write_bytes(pickle.dumps({"train": part, "test": part | {"id": ["w$_$1", "w$_$2"]}}, 4))
    (folder / "old.pkl").write_bytes(pickle.dumps({"train": part}, 0))
    return {
        "json": [
            Target(run.data, [lambda: task_of_run(run), run.read_preprocessing], True),
            Target(run.splits, [run.learned_from], True),
            Target(run.thresholds, [run.read_thresholds], True),
            Target(run.environment, [run.read_starts], True),
            Target(run.path / "model.json", [lambda: models.load(run.path)], True),
            Target(data / "dataset.json", [lambda: read_dataset_facts(data), lambda: stats(data)], True),
            Target(data / "store" / "store.json", [lambda: read_store_facts(data)], True),
            Target(data / "features" / "default" / "features.json", [lambda: read_facts(data, "default")], True),
            Target(receipt, [lambda: _recorded(_parsed(receipt))], True),
            Target(folder / "table.json", [lambda: read_table(folder / "table.json")], True),
        ],
        "yaml": [Target(run.settings, [lambda: read_settings(run)])],
        "parquet": [
            Target(data / "utterances.parquet", [lambda: read_manifest(data), lambda: stats(data)]),
            Target(data / "rejects.parquet", [lambda: read_rejects(data)]),
        ],
        "safetensors": [
            Target(store, [lambda: read_all(DialogueStore(store))]),
            Target(features, [lambda: read_all(DialogueFeatures(features))]),
            Target(run.model, [lambda: read_model(run.path)]),
        ],
        "pickle": [
            Target(folder / "mosi.pkl", [lambda: read_mmsa(folder / "mosi.pkl")]),
            Target(folder / "old.pkl", [lambda: read_mmsa(folder / "old.pkl")]),
        ],
        "csv": [
            Target(folder / "table.csv", [lambda: read_table(folder / "table.csv")]),
            Target(
                folder / "words.csv",
                [lambda: read_words_csv(folder / "words.csv"), lambda: recognised_from(folder / "words.csv")],
            ),
            Target(run.log, [lambda: TrainLog.read(run.log)]),
        ],
        "srt": [Target(path, [lambda path=path: read_transcript(path)]) for path in transcripts],
    }


def read_settings(run: RunDir) -> object:
    """The settings of a run, and of its model."""
    read_yaml(run.settings)
    settings, model = run.read_settings()
    return settings, ModelSpec.from_dict(model).config


def read_all(found: DialogueStore | DialogueFeatures) -> object:
    """Every utterance of a dialogue."""
    return [found[name] for name in ("u0", "u2") if name in found]


def mutated(content: bytes, draw: random.Random, of_json: bool) -> bytes:
    """`content` with one to four changes."""
    if of_json and draw.random() < 0.5:
        return json.dumps(exchanged(json.loads(content), draw)).encode()
    for _ in range(draw.randint(1, 4)):
        at, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
        end = min(end, at + 64)
        kind = draw.randrange(7)
        if kind == 0 and at < len(content):
            content = content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + draw.randbytes(end - at) + content[end:]
        elif kind == 2:
            content = content[:at] + content[end:]
        elif kind == 3:
            content = content[:at] + content[at:end] * draw.randint(2, 50) + content[end:]
        elif kind == 4:
            content = content[:at] + draw.choice(PIECES) + content[at:]
        elif kind == 5 and draw.random() < 0.3:
            content = content[:at]
        else:
            content = content[:at] + draw.choice(PIECES)[:1] + content[at + 1 :]
    return content


def exchanged(value: object, draw: random.Random) -> object:
    """`value` with one odd value in it."""
    if draw.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return draw.choice(ODD)
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    copied = value.copy()
    copied[key] = exchanged(value[key], draw)  # type: ignore[call-overload, index]
    return copied


def too_long(*_: object) -> None:
    """End a reading that takes too long."""
    raise _TooLongError


def main(count: int, *names: str) -> int:
    """See the head of this file."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_long)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        kinds = {kind: group for kind, group in targets(Path(place)).items() if kind in names or not names}
        for group in kinds.values():
            for read in (read for target in group for read in target.readers):
                read()  # the sound ones are all answers, and what they import is there before memory is counted
        (size,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")]
        limit = int(size.split()[1]) * 1024 + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        for kind, group in kinds.items():
            found[kind] = [0, 0]
            for number in range(count):
                target = group[number % len(group)]
                sound = target.path.read_bytes()
                damaged = mutated(sound, random.Random(f"{kind} {number}"), target.of_json)
                target.path.write_bytes(damaged)
                sys.stderr.write(f"{kind} {number} {target.path.name}\n")
                sys.stderr.flush()
                for read in target.readers:
                    signal.alarm(TIME_LIMIT_S)
                    try:
                        read()
                        found[kind][0] += 1
                    except (DataError, ConfigError, ModelError) as error:
                        found[kind][1] += 1
                        if len(str(error)) > LONGEST_ERROR:
                            raise AssertionError(f"{kind} {number}: an error of {len(str(error))} characters") from None
                    except BaseException:
                        sys.stdout.write(f"{kind} {number} {target.path.name}\n{damaged[:2000]!r}\n")
                        sys.stdout.write(traceback.format_exc() + "\n")
                        return 1
                    finally:
                        signal.alarm(0)
                target.path.write_bytes(sound)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
