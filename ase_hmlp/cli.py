"""The command line, ``hmlp``. Nothing imports this module; heavy imports are inside commands."""

from __future__ import annotations

import os
import sys

import click

from ase_hmlp import __version__
from ase_hmlp.analysis.commands import analyse
from ase_hmlp.commands import BAD_INPUT, INTERRUPTED
from ase_hmlp.errors import HMLPError
from ase_hmlp.lammps.commands import export, lammps
from ase_hmlp.reproduce.commands import reproduce
from ase_hmlp.simulate.commands import demo, run, sweep
from ase_hmlp.training.commands import import_frames, label, learn, search, train
from ase_hmlp.training.model_commands import ablate, compare, evaluate, info, reweight, stability

_DEBUG = "ase_hmlp.debug"

#: All of them; those of groups are in `click.Group.commands`.
COMMANDS = (
    *(demo, run, sweep, analyse, reproduce),
    *(train, label, import_frames, learn, search),
    *(evaluate, info, compare, reweight, stability, ablate),
    *(export, lammps),
)


class _Refusal(click.ClickException):
    """An `HMLPError` as one sentence on stderr."""

    exit_code = BAD_INPUT


class _Group(click.Group):
    """A group of commands whose errors end in one sentence and an exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (HMLPError, OSError) as error:
            if ctx.meta.get(_DEBUG) or isinstance(error, BrokenPipeError):
                raise
            raise _Refusal(_sentence(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, HMLPError) or not isinstance(error, OSError):
        return " ".join(str(error).split())
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _debug(command):
    """Add ``--debug`` to a command."""

    def remember(ctx, _, value):
        if value:
            ctx.meta[_DEBUG] = True

    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Show the traceback of an error.",
    )(command)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hmlp")
@_debug
def main():
    """Hierarchical machine-learned potential of molecular hydrogen."""
    # Threads that wait by spinning make a busy machine several times slower. Read when the
    # core is loaded, so it is set before anything is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


for _command in COMMANDS:
    main.add_command(_command)
    _parts = _command.commands.values() if isinstance(_command, click.Group) else [_command]
    for _part in _parts:
        _debug(_part)


if __name__ == "__main__":
    sys.exit(main())
