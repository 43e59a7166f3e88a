"""Commands of the analyses of structure; see `ase_hmlp.analysis.command_group`."""

from __future__ import annotations

from pathlib import Path

import click

from ase_hmlp.analysis.command_group import analysis


@analysis("bonds")
@click.option(
    "--bins", type=click.IntRange(min=2), default=100, show_default=True, help="Of the histogram."
)
def bonds(bins):
    """Bond lengths: mean, spread, distribution."""
    from ase_hmlp.analysis.bond_lengths import BondLengths

    return BondLengths(bins=bins)


@analysis("eqq")
@click.option(
    "--cutoff",
    type=click.FloatRange(min=0.0, min_open=True),
    default=8.0,
    show_default=True,
    help="Å.",
)
@click.option(
    "--shell",
    "shells",
    type=click.FloatRange(min=0.0, min_open=True),
    multiple=True,
    default=(1.2, 1.8),
    show_default=True,
    help="Where a shell ends, in nearest-neighbour distances of a close packing; repeatable.",
)
def eqq(cutoff, shells):
    """<EQQ>: quadrupole-quadrupole energy by shells, meV/molecule.

    Zong, Wiebe and Ackland (2020), equations 6 and 7, Table 1: Q = 0.26 D Å, every pair counted
    from both ends.
    """
    from ase_hmlp.analysis.quadrupoles import QuadrupoleEnergy

    return QuadrupoleEnergy(cutoff, shells)


@analysis("order")
@click.option(
    "--reference",
    required=True,
    help="Unit cell: a name of ase_hmlp.simulate.structures, or a file.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    nargs=3,
    help="Multiples of the unit cell in the trajectory's; found if not given.",
)
@click.option(
    "--matrix",
    type=int,
    nargs=9,
    help="Instead: the trajectory's cell vectors in those of the unit cell, one after another.",
)
def order(reference, repeat, matrix):
    """Orientational order parameter O against a reference cell, and its time series.

    Zong, Wiebe and Ackland (2020), equation 5: 1 where the orientations of the reference's unit
    cell repeat throughout the crystal, 0 in a disordered one. Sites and signs of the molecules are
    found in the first frame of the file, whichever are used: begin it with a crystal.
    """
    import numpy as np

    from ase_hmlp.analysis.order_parameter import OrderParameter
    from ase_hmlp.analysis.trajectory import Trajectory
    from ase_hmlp.errors import AnalysisError
    from ase_hmlp.simulate import structures

    if reference in structures.NAMES:
        unit = structures.load(reference)
    elif Path(reference).exists():
        unit = Trajectory(reference).first
    else:
        raise AnalysisError(
            f"There is no reference {reference!r}: it is no file, and known are "
            f"{', '.join(structures.NAMES)}."
        )
    if repeat and matrix:
        raise click.UsageError("One of --repeat and --matrix.")
    return OrderParameter(unit, np.reshape(matrix, (3, 3)) if matrix else repeat)


@analysis("orientation")
@click.option(
    "--pole",
    type=click.Choice(["layers", "a", "b", "c"]),
    help="Normal of close-packed layers, or cell vector, about which angles are counted; layers "
    "by default, or c where there are none.",
)
@click.option(
    "--direction", type=float, nargs=3, help="A fixed Cartesian direction instead of --pole."
)
@click.option(
    "--bins", type=click.IntRange(min=2), default=30, show_default=True, help="Of each histogram."
)
def orientation(pole, direction, bins):
    """Polar angles and azimuths of the molecules about the layers' normal; 1 is isotropic."""
    from ase_hmlp.analysis.orientations import Orientations

    return Orientations(direction or pole, bins)


@analysis("rdf")
@click.option(
    "--cutoff",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Å; half of the smallest distance between cell faces if not given.",
)
@click.option(
    "--width",
    type=click.FloatRange(min=0.0, min_open=True),
    default=0.02,
    show_default=True,
    help="Of a bin, Å.",
)
@click.option("--atoms-only", is_flag=True, help="For atoms that form no molecules.")
def rdf(cutoff, width, atoms_only):
    """Radial distribution functions: atoms, molecular centres, also scaled by density."""
    from ase_hmlp.analysis.pair_distributions import PairDistributions

    return PairDistributions(cutoff, width, molecular=not atoms_only)


@analysis("fraction")
@click.option(
    "--longest",
    type=click.FloatRange(min=0.0, min_open=True),
    default=1.0,
    show_default=True,
    help="Longest bond, Å.",
)
def fraction(longest):
    """Fraction of atoms in molecules: mutual nearest neighbours; bonds may break."""
    from ase_hmlp.analysis.molecular_fraction import MolecularFraction

    return MolecularFraction(longest)


@analysis("fingerprints")
@click.option("--model", default="h2-pbe", show_default=True, help="Shipped model or model file.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads; by default all cores.")
def fingerprints(model, threads):
    """Energy of a model by families of fingerprints, fp_EQQ above all.

    Zong, Wiebe and Ackland (2020), Fig. 5a: in solid and liquid.
    """
    from ase_hmlp.analysis.fingerprint_energies import FingerprintEnergies

    return FingerprintEnergies(model, threads)
