import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_tools.errors import DataError
from pipeline.run import RunDir
from pipeline.training.log import TrainLog
from pipeline.training.loop import Pass


def pass_with(loss):
    none = torch.zeros(0)
    return Pass(
        loss,
        {"bce": loss},
        {"face.macs": 7.0},
        ("a", "b"),
        none,
        none,
        none,
        batches=4,
        steps=2,
        seconds=3.0,
        wait_s=0.75,
        peak_bytes=2048,
    )


def write(run, start, losses):
    with TrainLog(run, start) as log:
        for epoch, loss in enumerate(losses, start=start + 1):
            log.add(epoch, pass_with(loss), pass_with(loss / 2), {"f1": None}, {"rest": 0.1})


def test_rows_are_read_back_and_a_broken_off_epoch_is_replaced(tmp_path):
    run = RunDir(tmp_path)
    write(run, 0, [4.0, 3.0])
    write(run, 1, [2.5, 2.0])  # a start that knows of one finished epoch
    rows = TrainLog.read(run.log)
    found = [(row["epoch"], row["train_loss"], row["valid_bce"]) for row in rows]
    assert found == [("1", "4.0", "2.0"), ("2", "2.5", "1.25"), ("3", "2.0", "1.0")]
    assert rows[0]["valid_f1"] == ""
    assert (rows[0]["face.macs"], rows[0]["step_seconds"], rows[0]["data_wait_share"]) == ("7.0", "1.5", "0.25")
    # Of the two utterances in three seconds.
    assert (float(rows[0]["samples_per_second"]), rows[0]["peak_bytes"]) == (pytest.approx(2 / 3), "2048")


def test_tensorboard_shows_the_curve_without_the_epoch_that_was_done_again(tmp_path):
    run = RunDir(tmp_path)
    write(run, 0, [4.0, 3.0])
    # Files are read by name, and the count in it has no leading zeros: the next one may sort before this one.
    (first,) = run.events.iterdir()
    first.rename(first.with_name(first.name.rpartition(".")[0] + ".9"))
    write(run, 1, [2.5])
    events = EventAccumulator(str(run.events)).Reload()
    assert {"train_loss", "face.macs", "data_wait_share"} <= set(events.Tags()["scalars"])
    assert "valid_f1" not in events.Tags()["scalars"]
    assert [(event.step, event.value) for event in events.Scalars("train_loss")] == [(1, 4.0), (2, 2.5)]


def test_events_that_cannot_be_written_and_a_damaged_log_say_so(tmp_path):
    run = RunDir(tmp_path)
    run.events.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot write .*events.*free space"):
        TrainLog(run, 0)
    run.log.write_text("epoch,train_loss\nx,1\n")
    with pytest.raises(DataError, match=r"log\.csv is damaged"):
        TrainLog.read(run.log)


def test_no_log_has_no_rows(tmp_path):
    assert TrainLog.read(tmp_path / "log.csv") == []
    write(RunDir(tmp_path), 0, [])
    assert TrainLog.read(tmp_path / "log.csv") == []
