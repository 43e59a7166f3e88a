"""How far a command is, where there is no terminal: plain lines, few of them."""

import io

import pytest
from rich.console import Console

from ase_hmlp import console
from ase_hmlp.simulate.run_progress import RunProgress
from ase_hmlp.simulate.sweep_progress import SweepProgress
from ase_hmlp.training.progress import TrainingProgress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that go by when the test says so."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def printed(kind, calls):
    stream = io.StringIO()
    with kind(Console(file=stream)) as progress:
        calls(progress)
    return stream.getvalue().splitlines()


def row(kelvin):
    return {"temperature_K": kelvin, "pressure_GPa": 100.0}


def test_a_run_says_ten_times_how_far_it_is(clock):
    def calls(progress):
        progress.preparing("relaxing at 100 GPa")
        progress.preparing("relaxing, step 1: 0.100 eV/Å, 99.00 GPa")
        progress.on_row(0, 1000, {})
        for step in range(10, 1001, 10):
            clock[0] += 1.0
            progress.on_row(step, 1000, row(300.0))

    lines = printed(RunProgress, calls)
    assert lines[:2] == ["Structure: relaxing at 100 GPa", "Step 0 of 1000, 0 %"]
    assert lines[2] == "Step 100 of 1000, 300 K, 100.0 GPa, 10 %, 0:01:30 left"
    assert lines[-1] == "Step 1000 of 1000, 300 K, 100.0 GPa, 100 %"
    assert len(lines) == 12


def test_a_slow_run_says_so_every_few_minutes(clock):
    """One that goes on from step 500; the time left is of this process's steps."""

    def calls(progress):
        progress.on_row(500, 1000, {})
        for step in range(501, 512):
            clock[0] += 100.0
            progress.on_row(step, 1000, row(300.0))

    lines = printed(RunProgress, calls)
    assert [line.split(",")[0] for line in lines] == [
        f"Step {step} of 1000" for step in (500, 503, 506, 509)
    ]
    assert lines[1].endswith("50 %, 13:48:20 left")


def test_a_sweep_has_a_line_for_every_point_that_ends(clock):
    def calls(progress):
        for steps, ended in ((0, 1), (10, 1), (110, 1), (120, 1), (130, 2), (130, 2), (300, 3)):
            clock[0] += 2.0
            progress(steps, 300, ended, 3)

    assert printed(SweepProgress, calls) == [
        "1 of 3 points have ended, 0 %",
        "1 of 3 points have ended, 36 %, 0:00:07 left",
        "1 of 3 points have ended, 40 %, 0:00:09 left",
        "2 of 3 points have ended, 43 %, 0:00:10 left",
        "3 of 3 points have ended, 100 %",
    ]


def test_a_terminal_has_a_bar_instead():
    stream = io.StringIO()
    with RunProgress(Console(file=stream, force_terminal=True)) as progress:
        progress.preparing("relaxing")
        progress.on_row(0, 10, {})
        progress.on_row(10, 10, row(300.0))
    assert "━" in stream.getvalue() and "Step 0" not in stream.getvalue()


def test_slow_labelling_has_a_line_every_few_minutes(clock):
    def calls(progress):
        for done in range(0, 101):
            progress("labelling", done, 100)
            clock[0] += 150.0

    lines = printed(TrainingProgress, calls)
    assert lines[0] == "labelling: 0 of 100, 0 %"
    assert lines[1] == "labelling: 2 of 100, 2 %, 4:05:00 left"
    assert lines[-1] == "labelling: 100 of 100, 100 %"
    assert len(lines) == 51


def test_stages_that_come_up_again_and_again_do_not_fill_a_log(clock):
    """A search that fits a candidate in two seconds, for half an hour."""

    def calls(progress):
        for candidate in range(900):
            progress("candidates", candidate, 900)
            for done in range(0, 101):
                progress("design matrix", done, 100)
                clock[0] += 0.02

    lines = printed(TrainingProgress, calls)
    assert lines[:3] == [
        "candidates: 0 of 900, 0 %",
        "design matrix: 0 of 100, 0 %",
        "design matrix: 100 of 100, 100 %",
    ]
    assert 20 < len(lines) < 70


def test_nothing_to_do_is_no_error(clock):
    assert printed(TrainingProgress, lambda progress: progress("labelling", 0, 0)) == []


def test_training_has_bars_on_a_terminal():
    stream = io.StringIO()
    with TrainingProgress(Console(file=stream, force_terminal=True)) as progress:
        for done in (0, 10, 0, 10):
            progress("fit", done, 10)
    assert "━" in stream.getvalue() and "fit: 0" not in stream.getvalue()
