"""How far a training is: bars with the time left, lines where there is no terminal."""

from __future__ import annotations

import time

from rich import progress
from rich.console import Console

from ase_hmlp.console import Lines

#: Seconds between lines at least: a search or a loop goes through its stages over and over.
QUIET = 30.0


class TrainingProgress:
    """Steps of each stage with the time left, called as ``progress(stage, done, all)``.

    Without a terminal there is a line for the begin and the end of a stage that comes up for the
    first time; otherwise one for each tenth of it, or every few minutes.

    Parameters
    ----------
    console : rich.console.Console
    """

    def __init__(self, console: Console):
        self._progress = progress.Progress(
            progress.TextColumn("{task.description:24}"),
            progress.BarColumn(bar_width=30),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, progress.TaskID] = {}
        self._console = console
        self._lines: dict[str, Lines] = {}
        self._done: dict[str, int] = {}
        self._ended: set[str] = set()
        self._last = 0.0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if not self._console.is_terminal:
            self._line(stage, done, total)
            return
        self._progress.start()  # not before: a refusal is one line without a bar
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        task = self._tasks[stage]
        if done < self._progress.tasks[task].completed:
            self._progress.reset(task)
        self._progress.update(task, completed=done, total=total)

    def _line(self, stage: str, done: int, total: int) -> None:
        new, first_end = stage not in self._done, done == total and stage not in self._ended
        if new or done < self._done[stage]:  # begun, or begun anew
            self._lines[stage] = Lines(self._console)
        self._done[stage] = done
        if done == total:
            self._ended.add(stage)
        now = time.monotonic()
        if total and (new or first_end or now - self._last >= QUIET):
            self._lines[stage](done, total, f"{stage}: {done} of {total}", due=first_end)
            self._last = now
