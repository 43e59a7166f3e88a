"""Where commands print their tables, and how far they are where there is no terminal."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of a table in a file or a pipe, where rich would take 80 and cut numbers off.
WIDE = 140

#: Lines on how far something is: so many of the whole, or when so many seconds have gone by.
LINES, EVERY = 10, 300.0


def output_console() -> Console:
    """Standard output, as wide as the terminal; `WIDE` if it is none and ``COLUMNS`` is not set."""
    from rich.console import Console

    console = Console()
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(width=WIDE)


class Lines:
    """How far something is, a plain line now and then: for the files of batch systems.

    Parameters
    ----------
    console : rich.console.Console
    """

    def __init__(self, console: Console):
        self._console = console
        self._last: float | None = None  # when a line was printed
        self._begun: tuple[float, int] | None = None
        self._share = 0

    def say(self, words: str) -> None:
        """Print a line."""
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)
        self._last = time.monotonic()

    def say_at_times(self, words: str) -> None:
        """Print the first of many, and one every few minutes."""
        if self._last is None or time.monotonic() - self._last >= EVERY:
            self.say(words)

    def __call__(self, done: int, total: int, words: str, due: bool = False) -> None:
        """Print a line if it is time for one, with the per cent and the time left.

        Parameters
        ----------
        done, total : int
            Steps; where this starts from, at first.
        words : str
        due : bool
            Whether there is reason for a line in any case.
        """
        share = LINES * done // total
        if self._begun is None:
            self._begun, due = (time.monotonic(), done), True
        words += f", {100 * done // total} %"
        start, before = self._begun
        if before < done < total:
            left = (time.monotonic() - start) * (total - done) / (done - before)
            words += f", {timedelta(seconds=round(left))} left"
        if due or share > self._share:
            self.say(words)
        else:
            self.say_at_times(words)
        self._share = share
