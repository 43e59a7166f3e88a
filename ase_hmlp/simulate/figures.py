"""Pictures of a constant-pressure run. Every function returns a `matplotlib.figure.Figure`.

Nothing here needs a display or touches pyplot: `Figure.savefig` draws on Agg, and a notebook shows
a returned figure by itself.
"""

from __future__ import annotations

import matplotlib
import numpy as np
from ase import Atoms, units
from ase.geometry.rdf import get_rdf
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ase_hmlp.figure_style import styled
from ase_hmlp.molecules import bond_shifts
from ase_hmlp.simulate.averages import drift
from ase_hmlp.simulate.build import thickness
from ase_hmlp.simulate.npt import settled

#: One colour for one quantity, in every picture.
COLOURS = {
    "temperature": "#c8553d",
    "pressure": "#33658a",
    "volume": "#3a7d44",
    "alignment": "#7b4b94",
    "bond": "#c8553d",
    "pair": "#33658a",
    "orientation": "#e09f3e",
    "total": "#222222",
    "static": "#9aa5b1",
}


def _running_mean(values, width):
    """Centred mean over `width` samples, NaN where it would reach past the ends."""
    out = np.full(len(values), np.nan)
    if width <= len(values):
        half = width // 2
        mean = np.convolve(values, np.full(width, 1.0 / width), mode="valid")
        out[half : half + len(mean)] = mean
    return out


def _shade_hold(axis, log):
    """Mark where the temperature is held."""
    held = log["time_ps"][log["holding"] == 1]
    if len(held):
        axis.axvspan(held[0], held[-1], color="#f4f1ea", zorder=0, lw=0)


def _axes(figure, axes):
    """Label the time axis, leave no room beside the data."""
    axes.set_xlabel("time (ps)")
    axes.margins(x=0)
    return figure


@styled
def timeline(log, pressure: float) -> Figure:
    """Temperature, pressure, volume and alignment against time.

    Parameters
    ----------
    log : structured array from `ase_hmlp.simulate.npt.read_log`
    pressure : float, GPa
        Target.
    """
    figure = Figure(figsize=(8.0, 7.6), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    panels = (
        ("temperature", "temperature_K", "temperature (K)"),
        ("pressure", "pressure_GPa", "pressure (GPa)"),
        ("volume", "volume_A3_per_atom", "volume (Å³/atom)"),
        ("alignment", "alignment", "alignment  ⟨P₂(cos α)⟩"),
    )
    t = log["time_ps"]
    width = max(3, len(t) // 40)
    for axis, (name, column, label) in zip(axes, panels, strict=True):
        _shade_hold(axis, log)
        axis.plot(t, log[column], color=COLOURS[name], alpha=0.35, lw=0.8)
        axis.plot(t, _running_mean(log[column], width), color=COLOURS[name], lw=1.8)
        axis.set_ylabel(label)
        axis.margins(x=0)
    axes[0].plot(t, log["target_K"], color="#222222", lw=1, ls="--", label="thermostat")
    axes[0].legend(loc="lower right")
    axes[1].axhline(pressure, color="#222222", lw=1, ls="--")
    axes[0].set_title("heated, then held (shaded) at constant pressure")
    axes[3].set_ylim(min(0.0, 1.05 * log["alignment"].min()), 1.02)
    return _axes(figure, axes[3])


def bonds(atoms: Atoms, molecules) -> tuple[np.ndarray, np.ndarray]:
    """Centres and bond vectors of molecules.

    Parameters
    ----------
    atoms : ase.Atoms
    molecules : (m, 2) atom indices

    Returns
    -------
    centres, vectors : (m, 3) arrays, Å
    """
    positions, cell = atoms.positions, atoms.cell.array
    shifts = bond_shifts(positions, cell, atoms.pbc, molecules)
    vectors = positions[molecules[:, 1]] + shifts @ cell - positions[molecules[:, 0]]
    return positions[molecules[:, 0]] + 0.5 * vectors, vectors


@styled
def molecules(frames: list[Atoms], relaxed: Atoms, pairs) -> Figure:
    """Bond lengths, and how far molecular centres are from one another.

    Parameters
    ----------
    frames : list of ase.Atoms
        At the temperature of interest.
    relaxed : ase.Atoms
        The static crystal, the same atoms.
    pairs : (m, 2) atom indices of the molecules
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    lengths = np.concatenate([np.linalg.norm(bonds(f, pairs)[1], axis=1) for f in frames])
    left.hist(
        lengths, bins=60, density=True, color=COLOURS["bond"], alpha=0.8, label="held temperature"
    )
    for n, r in enumerate(np.unique(np.linalg.norm(bonds(relaxed, pairs)[1], axis=1).round(4))):
        left.axvline(
            r, color=COLOURS["total"], lw=1, ls="--", label=None if n else "relaxed crystal"
        )
    left.set(xlabel="bond length (Å)", ylabel="density (1/Å)", title="the molecules")
    left.set_ylim(top=1.35 * left.get_ylim()[1])
    left.legend(loc="upper right")

    everything = [relaxed, *frames]
    # get_rdf wants a sphere that the cell encloses.
    reach = min(6.0, 0.499 * min(thickness(f.cell).min() for f in everything))

    def rdf(structures):
        centres = [
            Atoms(f"H{len(pairs)}", bonds(f, pairs)[0], cell=f.cell, pbc=True) for f in structures
        ]
        pictures = [get_rdf(c, reach, 160) for c in centres]
        g = np.mean([g for g, _ in pictures], axis=0)
        return pictures[0][1], g / (g.max() or 1.0)

    r, g = rdf([relaxed])
    right.fill_between(r, g, color=COLOURS["static"], alpha=0.6, lw=0)
    right.plot([], [], color=COLOURS["static"], lw=6, alpha=0.6, label="relaxed crystal")
    r, g = rdf(frames)
    right.plot(r, g, color=COLOURS["pair"], lw=1.8, label="held temperature")
    right.set(
        xlabel="distance of centres (Å)",
        ylabel="g(r) / highest peak",
        title="their neighbours",
        xlim=(1.0, reach),
        ylim=(0.0, 1.3),
    )
    right.legend(loc="upper left")
    return figure


@styled
def levels(log) -> Figure:
    """Where the heat goes: potential energy by level of the hierarchy.

    All levels but the bond are drawn as one curve: how they share the energy between molecules
    depends on how they were fitted.

    Parameters
    ----------
    log : structured array from `ase_hmlp.simulate.npt.read_log`
        Its first row is the relaxed crystal: energies are given relative to it.
    """
    figure = Figure(figsize=(8.0, 3.9), layout="constrained")
    axis = figure.subplots()
    _shade_hold(axis, log)
    t = log["time_ps"]
    width = max(3, len(t) // 40)
    curves = {
        "bond": ("bond (inside molecules)", log["bond_eV_per_atom"]),
        "pair": (
            "the other levels (between molecules)",
            log["pair_eV_per_atom"]
            + log["orientation_eV_per_atom"]
            + log["environment_eV_per_atom"],
        ),
        "total": ("all", log["potential_eV_per_atom"]),
    }
    for name, (label, energy) in curves.items():
        change = 1000.0 * (energy - energy[0])
        axis.plot(t, change, color=COLOURS[name], alpha=0.25, lw=0.7)
        axis.plot(t, _running_mean(change, width), color=COLOURS[name], lw=1.8, label=label)
    harmonic = 1500.0 * units.kB * log["target_K"]
    axis.plot(t, harmonic, color=COLOURS["total"], lw=1, ls="--", label="3/2 kT (harmonic crystal)")
    axis.set(ylabel="change (meV/atom)", title="potential energy by level")
    axis.legend(ncols=2, loc="upper left", fontsize=9)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.3 * (high - low))
    return _axes(figure, axis)


@styled
def conservation(log) -> Figure:
    """Draw what the integrator should keep constant, beside what flows through it.

    Parameters
    ----------
    log : structured array from `ase_hmlp.simulate.npt.read_log`
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    t, conserved = log["time_ps"], log["conserved_meV_per_atom"]
    for axis in (left, right):
        _shade_hold(axis, log)
        _axes(figure, axis)
    for name, colour in (("kinetic", "temperature"), ("potential", "pressure")):
        change = 1000.0 * (log[f"{name}_eV_per_atom"] - log[f"{name}_eV_per_atom"][0])
        left.plot(t, change, color=COLOURS[colour], label=name, alpha=0.8)
    left.plot(t, conserved, color=COLOURS["total"], lw=1.8, label="conserved quantity")
    left.set(ylabel="change (meV/atom)", title="energy that flows ...")
    left.legend(loc="upper left")
    right.plot(t, conserved, color=COLOURS["total"], lw=0.9)
    rows = settled(log)
    t, conserved = rows["time_ps"], rows["conserved_meV_per_atom"]
    slope, error = drift(t, conserved)
    if np.isfinite(slope):
        line = conserved.mean() + slope * (t - t.mean())
        label = f"drift {slope:+.3f} ± {error:.3f} meV/atom/ps"
        right.plot(t, line, color=COLOURS["orientation"], lw=2.2, label=label)
        right.legend(loc="upper left")
    right.set(ylabel="change (meV/atom)", title="... and energy that integration errors create")
    return figure


@styled
def crystal(relaxed: Atoms, last: Atoms, pairs, labels=("relaxed", "last frame")) -> Figure:
    """Molecules seen along the third cell vector, coloured by how far they lean towards it.

    Parameters
    ----------
    relaxed, last : ase.Atoms
        The same atoms at two times.
    pairs : (m, 2) atom indices of the molecules
    labels : two str
        Titles.
    """
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    colourmap = matplotlib.colormaps["plasma"]
    for axis, atoms, label in zip(panels, (relaxed, last), labels, strict=True):
        centres, vectors = bonds(atoms, pairs)
        # Axes of the view: the third cell vector towards the eye, the first to the right.
        eye = atoms.cell[2] / np.linalg.norm(atoms.cell[2])
        across = atoms.cell[0] - (atoms.cell[0] @ eye) * eye
        across /= np.linalg.norm(across)
        view = np.stack([across, np.cross(eye, across), eye], axis=1)
        fractional = np.linalg.solve(atoms.cell.array.T, centres.T).T % 1.0
        centres, vectors = fractional @ atoms.cell.array @ view, vectors @ view
        order = np.argsort(centres[:, 2])
        centres, vectors = centres[order], vectors[order]
        lean = np.degrees(np.arccos(np.abs(vectors[:, 2]) / np.linalg.norm(vectors, axis=1)))
        depth = np.argsort(np.argsort(centres[:, 2])) / len(centres)
        ends = np.stack([centres[:, :2] - vectors[:, :2] / 2, centres[:, :2] + vectors[:, :2] / 2])
        for width, shade in ((9.0, "#ffffff"), (6.5, None)):
            colours = colourmap(lean / 90.0)
            colours[:, 3] = 0.35 + 0.65 * depth
            axis.add_collection(
                LineCollection(
                    list(ends.transpose(1, 0, 2)),
                    linewidths=width,
                    colors=colours if shade is None else shade,
                    capstyle="round",
                    alpha=None if shade is None else 0.6,
                )
            )
        corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
        outline = corners @ atoms.cell.array @ view
        axis.plot(outline[:, 0], outline[:, 1], color=COLOURS["static"], lw=1)
        axis.set(aspect="equal", title=label, xlabel="Å")
        axis.autoscale_view()
        axis.grid(False)
    panels[0].set_ylabel("Å")
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 90), colourmap)
    bar = figure.colorbar(scale, ax=panels, shrink=0.85, ticks=[0, 30, 60, 90])
    bar.set_label("angle to the line of sight, c (degrees)")
    return figure
