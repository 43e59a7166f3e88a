"""Commands of the analyses of structure; see `ase_hmlp.analysis.command_group`."""

from __future__ import annotations

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
