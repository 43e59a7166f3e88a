"""Pictures of results: functions that return a `matplotlib.figure.Figure`; no display needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ase_hmlp.analysis.result import Table
from ase_hmlp.figure_style import styled

if TYPE_CHECKING:
    from ase_hmlp.analysis.result import Result

#: Colours of the curves of a panel, in order.
CURVES = ("#33658a", "#c8553d", "#3a7d44", "#7b4b94", "#e09f3e", "#222222", "#9aa5b1")


@styled
def panels(result: Result) -> Figure:
    """One panel for each table: its columns against the first, with their errors as bands.

    Parameters
    ----------
    result : Result
        Without a table, its quantities are listed.
    """
    n = max(1, len(result.tables))
    figure = Figure(figsize=(7.5, 1.2 + 2.9 * n), layout="constrained")
    axes = np.ravel(figure.subplots(n, 1, squeeze=False))
    for axis, table in zip(axes, result.tables, strict=False):
        curves(axis, table)
    if not result.tables:
        axes[0].axis("off")
        axes[0].text(0.0, 1.0, "\n".join(map(str, result.quantities)), va="top")
    axes[0].set_title(result.title)
    return figure


@styled
def stacked(result: Result) -> Figure:
    """One panel for each column of the first table, against its first.

    Parameters
    ----------
    result : Result
    """
    x, *others = result.tables[0].columns
    figure = Figure(figsize=(7.5, 0.8 + 1.6 * len(others)), layout="constrained")
    axes = np.ravel(figure.subplots(len(others), 1, squeeze=False, sharex=True))
    for axis, column in zip(axes, others, strict=True):
        curves(axis, Table("", (x, column)))
        axis.set_xlabel("")
    axes[-1].set_xlabel(x.label)
    axes[0].set_title(result.title)
    return figure


def curves(axis: Axes, table: Table) -> None:
    """Draw the columns of a table against its first.

    Parameters
    ----------
    axis : matplotlib Axes
    table : Table
    """
    x, *others = table.columns
    few = len(x.values) <= 30
    for colour, column in zip(_cycled(len(others)), others, strict=True):
        axis.plot(
            x.values, column.values, color=colour, label=column.label, marker="o" if few else None
        )
        if column.error is not None and np.isfinite(column.error).any():
            low, high = column.values - column.error, column.values + column.error
            axis.fill_between(x.values, low, high, color=colour, alpha=0.25, lw=0)
    axis.set_xlabel(x.label)
    if len(others) == 1:
        axis.set_ylabel(others[0].label)
    else:
        axis.set_ylabel(table.label)
        axis.legend()
    axis.margins(x=0.02 if few else 0.0)


def _cycled(n: int) -> list[str]:
    return [CURVES[k % len(CURVES)] for k in range(n)]
