"""Pictures of a comparison. Every function returns a `matplotlib.figure.Figure`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ase_hmlp.figure_style import styled
from ase_hmlp.simulate.figures import COLOURS
from ase_hmlp.training.fidelity.compare import BARS, Comparison
from ase_hmlp.training.fidelity.molecules import Curve, difference
from ase_hmlp.training.fidelity.reference import CRYSTAL

_ARRANGEMENT = {
    "H": COLOURS["volume"],
    "X": COLOURS["pressure"],
    "T": COLOURS["temperature"],
    "L": COLOURS["alignment"],
}
_DFT = {"ls": "none", "marker": "o", "ms": 4}


@styled
def dimers(comparison: Comparison) -> Figure:
    """Energies of two molecules, DFT in points and the model in lines (seed paper, Fig. 5b)."""
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curves in comparison.curves.items():
        colour = _ARRANGEMENT[name]
        _draw(left, curves, colour, name)
        if name in "HX" and "T" in comparison.curves:
            pairs = zip(curves, comparison.curves["T"], strict=True)
            _draw(right, [difference(*pair) for pair in pairs], colour, f"{name} - T")
    for axis in (left, right):
        axis.axhline(0.0, color="#222222", lw=0.8)
        axis.set_xlabel("separation of the centres (Å)")
    left.set_title("points: DFT, lines: model")
    left.set_ylabel("energy less two molecules' (meV)")
    left.set_ylim(-40.0, 400.0)
    left.set_xlim(1.35, 5.0)
    left.legend()
    right.set_ylabel("energy less that of T (meV)")
    right.set_xlim(1.6, 4.5)
    right.set_ylim(-100.0, 60.0)
    lines = zip(comparison.crossings, ("DFT", "model"), (":", "--"), strict=True)
    for at, who, style in lines:
        if np.isfinite(at):
            label = f"T-X crossing, {who}: {at:.2f} Å"
            right.axvline(at, color=COLOURS["static"], ls=style, label=label)
    right.legend()
    return figure


def _draw(axis, curves, colour: str, label: str) -> None:
    dft, model = curves
    axis.plot(*_milli(dft), color=colour, label=label, **_DFT)
    axis.plot(*_milli(model), color=colour)


def _milli(curve: Curve):
    return curve.separation, 1e3 * curve.energy


@styled
def pressures(comparison: Comparison) -> Figure:
    """Static pressure against volume, and by how much the model is off."""
    v, dft, own, unmoved = comparison.pressures.T
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    upper.plot(v, dft, color="#222222", label="DFT", **_DFT)
    upper.plot(v, own, color=COLOURS["pressure"], label="model")
    upper.set_yscale("log")
    upper.set_ylabel("pressure (GPa)")
    upper.set_title(f"{CRYSTAL}, static, in DFT's cells")
    upper.legend()
    bar = BARS["pressure"][0]
    lower.axhspan(-bar, bar, color="#f4f1ea", lw=0)
    lower.axhline(0.0, color="#222222", lw=0.8)
    for pressure, label, style in (
        (own, "own relaxed positions", "-"),
        (unmoved, "DFT's positions", ":"),
    ):
        error = 100.0 * (pressure / dft - 1.0)
        lower.plot(v, error, style, marker="o", ms=4, color=COLOURS["pressure"], label=label)
    lower.set_ylabel("model - DFT (%)")
    lower.set_xlabel("volume (Å³/atom)")
    lower.legend()
    return figure


@styled
def phonons(comparison: Comparison) -> Figure:
    """Error of each optical frequency at Gamma against the frequency."""
    dft, own, overlap = comparison.modes.T
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    bar = BARS["phonon"][0]
    axis.axhspan(-bar, bar, color="#f4f1ea", lw=0)
    axis.axhline(0.0, color="#222222", lw=0.8)
    points = axis.scatter(
        dft, 100.0 * (own / dft - 1.0), c=overlap, vmin=0.0, vmax=1.0, cmap="viridis", zorder=3
    )
    figure.colorbar(points, label="overlap of the eigenvectors")
    axis.set_xlabel("frequency of DFT (1/cm)")
    axis.set_ylabel("model - DFT (%)")
    axis.set_title(f"{CRYSTAL}, optical modes at Gamma")
    return figure
