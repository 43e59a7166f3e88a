"""How far a run is: a bar with the time left, lines where there is no terminal."""

from __future__ import annotations

from rich import progress
from rich.console import Console

from ase_hmlp.console import Lines


class RunProgress:
    """How the structure is made, then steps with the time left.

    Parameters
    ----------
    console : rich.console.Console
    """

    def __init__(self, console: Console):
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=20),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[state]}"),
            console=console,
        )
        self._making: progress.TaskID | None = None
        self._steps: progress.TaskID | None = None
        self._lines = None if console.is_terminal else Lines(console)

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *_) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def preparing(self, what: str) -> None:
        """Show how the structure is made."""
        if self._lines is not None:
            self._lines.say_at_times(f"Structure: {what}")
            return
        self._progress.start()  # not before: a refusal is one line without a bar
        if self._making is None:
            self._making = self._progress.add_task("Structure", total=None, state="")
        self._progress.update(self._making, state=what)

    def on_row(self, step: int, steps: int, row: dict[str, float]) -> None:
        """Show a row of the log; none at first."""
        state = ""
        if row:
            state = f"{row['temperature_K']:.0f} K, {row['pressure_GPa']:.1f} GPa"
        if self._lines is not None:
            words = f"Step {step} of {steps}"
            self._lines(step, steps, f"{words}, {state}" if state else words)
            return
        self._progress.start()
        if self._making is not None:
            self._progress.remove_task(self._making)
            self._making = None
        if self._steps is None:
            self._steps = self._progress.add_task("Steps", total=steps, completed=step, state="")
        self._progress.update(self._steps, completed=step, state=state)
