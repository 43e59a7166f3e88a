"""The command group ``hmlp analyse``: options all analyses share, and how a result is shown.

Analyses register by the decorator `analysis`, in modules that `ase_hmlp.analysis.commands` imports.
Heavy imports are inside functions, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click

from ase_hmlp.console import output_console


@click.group()
def analyse():
    """Analyse trajectories: values with errors and units, curves, pictures.

    TRAJECTORY is any file ASE reads, or the folder of a run. Every analysis prints its values and
    writes NAME.json, NAME.csv and NAME.png to a folder.
    """


def analysis(name: str):
    """Register a function as ``hmlp analyse NAME TRAJECTORY``.

    The function takes the command's own options (declared by `click.option` below this decorator)
    and returns a new `ase_hmlp.analysis.streaming.Analysis`, or several whose results are written
    side by side.

    Parameters
    ----------
    name : str
    """

    def register(make):
        @analyse.command(name, help=make.__doc__)
        @click.argument("trajectory", type=click.Path(path_type=Path))
        @trajectory_options
        @output_options
        @functools.wraps(make)
        def command(
            trajectory,
            start,
            stop,
            step,
            timestep,
            continuous,
            longest_bond,
            type_mass,
            output,
            overwrite,
            as_json,
            **settings,
        ):
            from ase_hmlp.analysis.streaming import analyse as stream
            from ase_hmlp.analysis.trajectory import Trajectory

            made = make(**settings)
            analyses = made if isinstance(made, (list, tuple)) else [made]
            check_output(output, [a.name for a in analyses], overwrite)
            frames = Trajectory(
                trajectory,
                timestep=timestep,
                start=start,
                stop=stop,
                step=step,
                continuous=continuous,
                longest=longest_bond,
                type_masses=type_mass,
                molecular=all(a.molecular for a in analyses),
            )
            with _Progress() as progress:
                results = stream(frames, analyses, progress)
            for result in results:
                finish(result, output, overwrite, as_json)

        # The options of `make` come behind those of the command.
        return command

    return register


def trajectory_options(command):
    """Add the options that choose frames of a trajectory."""
    for option in (
        click.option(
            "--continuous",
            is_flag=True,
            help="Positions never jump across the cell: ASE's integrators write them so.",
        ),
        click.option(
            "--type-mass",
            type=click.FloatRange(min=0.0, min_open=True),
            multiple=True,
            help="Mass of an atom type of a LAMMPS dump without elements, u; one for each type.",
        ),
        click.option(
            "--longest-bond",
            type=click.FloatRange(min=0.0, min_open=True),
            help="A longer bond is broken, Å; 1.15, or 1.75 where bonds are stated, by default.",
        ),
        click.option(
            "--timestep",
            type=click.FloatRange(min=0.0, min_open=True),
            help="Time between frames of the file, fs, where it does not say.",
        ),
        click.option(
            "--step", type=click.IntRange(min=1), default=1, show_default=True, help="Frame stride."
        ),
        click.option("--stop", type=click.IntRange(min=1), help="Frame to end before."),
        click.option(
            "--start",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="First frame used; those before are settling.",
        ),
    ):
        command = option(command)
    return command


def output_options(command):
    """Add the options that say where results go."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--overwrite", is_flag=True, help="Replace what is there already."),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            default="analysis",
            show_default=True,
            help="Folder to write to.",
        ),
    ):
        command = option(command)
    return command


def check_output(output: Path, names, overwrite: bool) -> None:
    """Refuse, before anything is computed, to overwrite results.

    Raises
    ------
    OutputExistsError
    """
    from ase_hmlp.analysis.result import refuse_existing
    from ase_hmlp.errors import OutputExistsError

    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"{output} is a file, not a folder to write to.")
    if not overwrite:
        try:
            refuse_existing(output / f"{name}.json" for name in names)
        except OutputExistsError as error:
            raise OutputExistsError(
                f"{error} Choose another folder by -o, or --overwrite."
            ) from None


def finish(result, output: Path, overwrite: bool, as_json: bool) -> None:
    """Save a result and print it.

    Parameters
    ----------
    result : Result
    output : path of a folder
    overwrite : bool
    as_json : bool
        Print JSON, without the tables, instead of lines.
    """
    paths = result.save(output, overwrite)
    if as_json:
        record = json.loads(paths[0].read_text(encoding="utf-8"))
        del record["tables"]
        click.echo(json.dumps(record | {"files": [str(p) for p in paths]}, indent=1))
        return
    from rich import box
    from rich.table import Table

    console = output_console()
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("quantity", "value", "± error", "unit"):
        left = name in ("quantity", "unit")
        table.add_column(name, justify="left" if left else "right", no_wrap=not left)
    for quantity in result.quantities:
        table.add_row(quantity.name, *quantity.rounded, quantity.unit)
    console.print(result.title)
    if result.quantities:
        console.print(table)
    for note in result.notes:
        console.print(note, markup=False, soft_wrap=True)
    console.print(f"Written: {', '.join(map(str, paths))}", markup=False, soft_wrap=True)


class _Progress:
    """Frames done, on a terminal only."""

    def __init__(self):
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        self._progress = progress.Progress(
            progress.TextColumn("{task.completed} frames"),
            progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._progress.live.is_started:
            self._progress.stop()

    def __call__(self, frames: int) -> None:
        self._progress.start()  # not before: a refusal is one line without anything else
        self._progress.update(self._task, completed=frames)
