"""Pictures of the analyses of motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import CURVES, curves
from ase_hmlp.figure_style import styled

if TYPE_CHECKING:
    from ase_hmlp.analysis.result import Result


@styled
def spectrum(result: Result) -> Figure:
    """Spectra around their peaks, which are marked.

    Parameters
    ----------
    result : Result
        Its table is named like it; quantities that end in ``peak`` and ``width`` are its lines.
    """
    figure = Figure(figsize=(7.5, 4.1), layout="constrained")
    axis = figure.subplots()
    table = result.table(result.name)
    curves(axis, table)
    named = {q.name: q for q in result.quantities}
    peaks = [(q, named[q.name[:-4] + "width"]) for q in named.values() if q.name.endswith("peak")]
    for k, (peak, _) in enumerate(peaks):
        axis.axvline(peak.value, color="#222222", lw=0.8, ls="--")
        above = axis.get_xaxis_transform()
        axis.text(peak.value, 0.99 - 0.06 * k, f" {peak}", transform=above, va="top", fontsize=8)
    axis.set_title(result.title)
    reach = 6.0 * max(result["resolution"].value, *(w.value for _, w in peaks), 20.0)
    low = min(p.value for p, _ in peaks) - reach
    high = max(p.value for p, _ in peaks) + reach
    x = table.columns[0].values
    shown = (x >= low) & (x <= high)
    axis.set_xlim(max(low, x[0]), min(high, x[-1]))
    axis.set_ylim(0.0, 1.25 * max(c.values[shown].max() for c in table.columns[1:]))
    axis.set_ylabel("spectral density (cm)")
    return figure


@styled
def rotation(result: Result) -> Figure:
    """Autocorrelations, over those of free rotors; the thermal rotation is marked."""
    figure = Figure(figsize=(7.5, 4.1), layout="constrained")
    axis = figure.subplots()
    time, *columns = result.table("rotation").columns
    shades = {"momentum": CURVES[1], "axis": CURVES[0], "axis_p2": CURVES[2]}
    for column in columns:
        shade = shades[column.name.removesuffix("_free")]
        dashed = column.error is None
        label = None if dashed else column.label
        axis.plot(time.values, column.values, color=shade, ls=":" if dashed else "-", label=label)
        if column.error is not None and np.isfinite(column.error).any():
            low, high = column.values - column.error, column.values + column.error
            axis.fill_between(time.values, low, high, color=shade, alpha=0.25, lw=0)
    axis.plot([], [], color="#222222", ls=":", label="free rotor")
    axis.axhline(0.0, color="#222222", lw=0.8)
    period = result["thermal rotation takes"].value
    if period <= time.values[-1]:
        axis.axvline(period, color="#222222", lw=0.8, ls="--", label="one thermal rotation")
    axis.set(xlabel=time.label, ylabel="autocorrelation", title=result.title)
    axis.margins(x=0)
    axis.legend()
    return figure


@styled
def displacement(result: Result) -> Figure:
    """Mean-squared displacement against time, both logarithmic."""
    figure = Figure(figsize=(7.5, 4.1), layout="constrained")
    axis = figure.subplots()
    curves(axis, result.table("diffusion"))
    axis.set(xscale="log", title=result.title)
    values = result.table("diffusion")["msd_A2"]
    if (values > 0.0).any():
        axis.set_yscale("log")
    time, msd = result["after"].value, result["rms displacement"].value ** 2
    neighbour = result["nearest-neighbour distance"].value
    axis.axhline(neighbour**2, color="#222222", lw=0.8, ls=":", label="nearest neighbours")
    if msd > 0.0:
        t = np.array([0.25 * time, time])
        axis.plot(t, msd * t / time, color="#222222", lw=0.8, ls="--", label="in proportion to t")
    axis.legend(loc="lower right")
    return figure
