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
