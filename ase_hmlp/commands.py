"""What the commands of the command line share. Nothing heavy is imported here."""

from __future__ import annotations

import shlex
import signal
from contextlib import contextmanager

import click

#: Exit codes, after the shells' and click's own: a part that did not end well, a usage error or bad
#: input, and Ctrl-C.
UNFINISHED, BAD_INPUT, INTERRUPTED = 1, 2, 130

_ARGUMENTS = "ase_hmlp.arguments"


class Noted(click.Command):
    """A command that remembers what it was given."""

    def parse_args(self, ctx, args):
        """Parse them, as click does."""
        ctx.meta[_ARGUMENTS] = shlex.join([*ctx.command_path.split(), *args])
        return super().parse_args(ctx, args)


def given_command() -> str:
    """The present command, of class `Noted`, as it was given."""
    return click.get_current_context().meta[_ARGUMENTS]


@contextmanager
def terminable():
    """Take SIGTERM as Ctrl-C: batch systems send it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
