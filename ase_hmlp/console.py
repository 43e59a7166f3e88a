"""Where commands print their tables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of a table in a file or a pipe, where rich would take 80 and cut numbers off.
WIDE = 140


def output_console() -> Console:
    """Standard output, as wide as the terminal; `WIDE` if it is none and ``COLUMNS`` is not set."""
    from rich.console import Console

    console = Console()
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(width=WIDE)
