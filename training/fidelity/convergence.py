"""What DFT's own numbers are converged to: the checks that came with them, as sentences."""

from __future__ import annotations

import numpy as np
from ase.units import GPa
from scipy.interpolate import CubicSpline

from ase_hmlp.training.fidelity.crystals import match, modes, pressure
from ase_hmlp.training.fidelity.molecules import crossing, dft_curve, difference
from ase_hmlp.training.fidelity.reference import CRYSTAL, PHASES, Reference, arrangement

#: What the names of checks of phonons begin with.
PHONONS = "phonons, "

#: Modes that are little of what atoms are held by, and sums of much that cancels.
SOFTEST = 3


def convergence_lines(reference: Reference) -> list[str]:
    """One sentence for each kind of check, as a Markdown list; empty without any."""
    return [
        *_crossing_lines(reference),
        *_crystal_lines(reference),
        *_phonon_lines(reference),
        *_pulay_line(reference),
    ]


def _checks(reference: Reference, key: str) -> list[str]:
    found = [str(atoms.info["check"]) for atoms in reference.convergence if key in atoms.info]
    return list(dict.fromkeys(found))


def _crossing_lines(reference: Reference) -> list[str]:
    lines = []
    t, x = (dft_curve(reference.dimers[name]) for name in "TX")
    at = crossing(t, x)
    if np.isnan(at):
        return []
    usual = difference(t, x)
    spline = CubicSpline(usual.separation, usual.energy)
    slope = float(spline(at, 1))
    for check in _checks(reference, "axes"):
        chosen = [atoms for atoms in reference.convergence if atoms.info["check"] == check]
        chosen.sort(key=lambda atoms: atoms.info["separation"])
        curves = [
            dft_curve([atoms for atoms in chosen if arrangement(atoms) == name]) for name in "TX"
        ]
        other = difference(*curves)
        if not len(other.separation):
            continue
        change = other.energy - spline(other.separation)
        # The zero of E_T - E_X moves by minus its change over its slope.
        move = -float(np.interp(at, other.separation, change)) / slope
        lines.append(
            f"- T-X crossing, {check}: moves by {move:+.4f} Å; E(T) - E(X) at "
            f"{other.separation[0]:g} to {other.separation[-1]:g} Å changes by at most "
            f"{1e3 * np.abs(change).max():.2f} meV."
        )
    return lines


def _crystal_lines(reference: Reference) -> list[str]:
    """Changes of energy differences between phases, and of the pressure."""
    frames = {
        (str(atoms.info["check"]), str(atoms.info["phase"])): atoms
        for atoms in reference.convergence
        if "phase" in atoms.info
    }
    if not frames:
        return []
    target = float(next(iter(frames.values())).info["pressure_GPa"])
    usual = {
        ("", phase): by_pressure[target]
        for phase, by_pressure in reference.relaxed.items()
        if target in by_pressure
    }
    frames |= usual
    phases = [name for name in PHASES if ("", name) in frames]

    def energies(check):
        values = [frames[check, name] for name in phases]
        return np.array([2e3 * atoms.get_potential_energy() / len(atoms) for atoms in values])

    lines = []
    # The cutoff was checked on the mesh of the relaxations, which is the cheapest.
    coarse = "relaxation mesh"
    for check, base in (("dense mesh", ""), (coarse, ""), (f"{coarse}, 80 Ry", coarse)):
        if any((c, name) not in frames for c in (check, base) for name in phases):
            continue
        change = energies(check) - energies(base)
        dp = pressure(frames[check, CRYSTAL]) - pressure(frames[base, CRYSTAL])
        against = f"against {base}" if base else "against the labels"
        lines.append(
            f"- Crystals at {target:g} GPa, {check} {against}: energy differences between phases "
            f"change by at most {np.ptp(change):.2f} meV/molecule, the pressure of {CRYSTAL} by "
            f"{dp:+.2f} GPa."
        )
    return lines


def _phonon_lines(reference: Reference) -> list[str]:
    """Changes of the modes at Gamma, the softest apart from the others."""
    lines = []
    for check in dict.fromkeys(str(atoms.info["check"]) for atoms in reference.convergence):
        if not check.startswith(PHONONS):
            continue
        displaced = [atoms for atoms in reference.convergence if atoms.info["check"] == check]
        about = displaced[0].info
        phase, target = str(about["phase"]), float(about["pressure_GPa"])
        atoms = reference.relaxed[phase][target]
        usual, better = modes(atoms, reference.phonon), modes(atoms, displaced)
        pairs, _ = match(usual, better)
        change = 100.0 * (better.frequency[pairs[:, 1]] / usual.frequency[pairs[:, 0]] - 1.0)
        soft, others = change[:SOFTEST], np.abs(change[SOFTEST:])
        lines.append(
            f"- Modes of {phase} at Gamma, {target:g} GPa, {check.removeprefix(PHONONS)}: the "
            f"softest {SOFTEST} change by {soft.min():+.1f} to {soft.max():+.1f} %, others by at "
            f"most {others.max():.1f} %."
        )
    return lines


def _pulay_line(reference: Reference) -> list[str]:
    """Stress against the derivative of the energy, both at constant cutoff."""
    atoms = sorted(reference.relaxed[CRYSTAL].values(), key=lambda a: a.get_volume())
    if len(atoms) < 6:
        return []
    v = np.array([a.get_volume() / len(a) for a in atoms])
    e = np.array([a.get_potential_energy() / len(a) for a in atoms])
    # Smoother than against the volume: the energy is nearly a power of it.
    spline = CubicSpline(np.log(v), e)
    slope = -spline(np.log(v), 1) / v / GPa
    off = (slope - [pressure(a) for a in atoms])[1:-1]  # a spline's ends are its worst
    return [
        f"- Static pressure of {CRYSTAL}: -dE/dV at constant cutoff less the stress that the model "
        f"is held against: {off.min():+.2f} to {off.max():+.2f} GPa."
    ]
