"""The picture of a sweep: predicted deviations along every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ase_hmlp.figure_style import styled

#: Colours of phases, in the order they are met.
COLOURS = ("#33658a", "#c8553d", "#3a7d44", "#7b4b94", "#e09f3e", "#222222")


@dataclass(frozen=True)
class Trace:
    """A run in the picture.

    Attributes
    ----------
    phase : str
    pressure, temperature : float, GPa and K
    log : structured array from `ase_hmlp.simulate.observables.read_log`
    failed : bool
        Whether it ended before it should.
    """

    phase: str
    pressure: float
    temperature: float
    log: np.ndarray
    failed: bool


@styled
def deviations(
    traces: list[Trace], threshold: float | None = None, largest: bool = False
) -> Figure:
    """Mean predicted deviation against time: a panel for each pressure and temperature.

    Parameters
    ----------
    traces : list of Trace
    threshold : float, optional
        meV/atom; drawn as a broken line.
    largest : bool
        Whether to draw that of the most uncertain atom too, and the mean thinner and paler.

    Returns
    -------
    matplotlib.figure.Figure
        Crosses mark runs that failed.
    """
    pressures = sorted({t.pressure for t in traces})
    temperatures = sorted({t.temperature for t in traces}, reverse=True)
    phases = list(dict.fromkeys(t.phase for t in traces))
    figure = Figure(
        figsize=(1.2 + 2.3 * len(pressures), 1.0 + 1.7 * len(temperatures)), layout="constrained"
    )
    axes = figure.subplots(
        len(temperatures), len(pressures), squeeze=False, sharex=True, sharey=True
    )
    for i, temperature in enumerate(temperatures):
        for j, pressure in enumerate(pressures):
            axis = axes[i, j]
            axis.set_title(f"{pressure:g} GPa, {temperature:g} K")
            if threshold is not None:
                axis.axhline(threshold, color="#9aa5b1", ls="--", lw=1)
            for trace in traces:
                if (trace.pressure, trace.temperature) == (pressure, temperature):
                    colour = COLOURS[phases.index(trace.phase) % len(COLOURS)]
                    _draw(axis, trace, colour, largest)
    for axis in axes[-1]:
        axis.set_xlabel("time, ps")
    for axis in axes[:, 0]:
        axis.set_ylabel("deviation, meV" if largest else "meV/atom")
    axes[0, 0].set_ylim(bottom=0.0)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles.update(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=min(len(handles), 2 * len(pressures)),
    )
    return figure


def _draw(axis, trace: Trace, colour: str, largest: bool) -> None:
    known = trace.log[~np.isnan(trace.log["deviation_meV_per_atom"])]
    time, value = known["time_ps"], known["deviation_meV_per_atom"]
    if largest:
        axis.plot(time, value, color=colour, lw=0.7, alpha=0.6, label=f"{trace.phase}, mean")
        value = known["deviation_max_meV"]
        axis.plot(time, value, color=colour, lw=0.9, label=f"{trace.phase}, largest")
    else:
        axis.plot(time, value, color=colour, label=trace.phase)
    if trace.failed and len(time):
        axis.plot(time[-1], value[-1], "x", color=colour, ms=8, mew=2)
