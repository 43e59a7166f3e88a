"""How far the points of a sweep are: a bar with the time left, lines where there is no terminal."""

from __future__ import annotations

from rich import progress
from rich.console import Console

from ase_hmlp.console import Lines


class SweepProgress:
    """Steps of all points, with the time left; called as `run_sweep` calls its ``progress``.

    Parameters
    ----------
    console : rich.console.Console
    """

    def __init__(self, console: Console):
        self._progress = progress.Progress(
            progress.TextColumn("{task.fields[points]}"),
            progress.BarColumn(bar_width=30),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
            console=console,
        )
        self._task: progress.TaskID | None = None
        self._lines = None if console.is_terminal else Lines(console)
        self._ended = 0

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(self, *_) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def __call__(self, steps: int, all_steps: int, ended: int, points: int) -> None:
        """Show how far it is."""
        if self._lines is not None:
            words = f"{ended} of {points} points have ended"
            self._lines(steps, all_steps, words, due=ended > self._ended)
            self._ended = ended
            return
        self._progress.start()  # not before: a refusal is one line without a bar
        if self._task is None:
            self._task = self._progress.add_task("", total=all_steps, completed=steps, points="")
        self._progress.update(self._task, completed=steps, points=f"{ended} of {points} points")
