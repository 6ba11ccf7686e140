from __future__ import annotations

import io

import pytest
from rich.console import Console

from isofire.training import EpochRecord
from isofire.training.progress import Bar, Lines, Reporter, line, reporter

RECORD = EpochRecord(
    epoch=2, train_loss=0.5, train_accuracy=0.875, valid_loss=0.6, valid_accuracy=0.8125, lr=0.012345, seconds=2.0,
    images_per_second=812.4,
)  # fmt: skip
TEXT = "epoch 2/9  loss 0.5000  accuracy 87.5 %  valid 81.2 %  lr 0.0123  812 images/s"


def test_a_record_on_one_line() -> None:
    assert line(RECORD, 9) == TEXT


def test_a_log_has_one_line_per_epoch_however_narrow() -> None:
    stream = io.StringIO()
    show = Lines(Console(file=stream, width=20), 9, 1.0)
    show.step(1, 3, 0.5, 0.5, 100.0)
    show.epoch(RECORD)
    show.close()
    (text,) = stream.getvalue().splitlines()
    assert text == f"{TEXT}  left 0:00:00"


def test_a_terminal_gets_a_bar_with_step_loss_accuracy_speed_and_time_left() -> None:
    stream = io.StringIO()
    show = Bar(Console(file=stream, force_terminal=True, width=160), 9, 10, 0)
    show.step(1, 3, 0.25, 0.5, 100.0)
    show.epoch(RECORD)
    show.bar.refresh()
    show.close()
    text = stream.getvalue()
    for part in ("epoch 2/9 step 3/10", "loss 0.2500 accuracy 50.0 % 100 images/s", "-:--:--", TEXT):
        assert part in text


def test_the_choice(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    silent = reporter(False, 9, 10, 0)
    assert type(silent) is Reporter
    silent.say("x")
    silent.epoch(RECORD)
    assert capsys.readouterr().err == ""
    assert type(reporter(True, 9, 10, 0)) is Lines
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = reporter(True, 9, 10, 20)
    assert isinstance(bar, Bar)
    assert bar.bar.tasks[0].completed == 20
    bar.close()
