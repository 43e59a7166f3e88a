"""What a reference leaves of labels: are signs and units right, which frames stick out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.stats import median_abs_deviation, theilslopes

from ase_hmlp.errors import DataError
from ase_hmlp.potential import Potential
from ase_hmlp.training.bond import projected_forces
from ase_hmlp.training.frames import Frame
from ase_hmlp.training.sections import Section
from ase_hmlp.training.weights import Weights

#: A label and its prediction may differ by this factor for all sorts of reasons; by more, it is
#: the unit (the closest two that are mixed up, rydberg and hartree, are a factor of two apart).
SLOPES = (0.7, 1.43)

#: Stiffness of the bond, eV/Å²: 36 in an isolated molecule, 20 to 60 under pressure and stretched.
STIFFNESS = (10.0, 100.0)


@dataclass(frozen=True)
class Residuals:
    """Labels of f frames beside the predictions of a reference.

    Attributes
    ----------
    energy : (f,) label minus prediction, eV/atom
    force : (f,) root mean square over components of label minus prediction, eV/Å
    predicted_energy : (f,) eV/atom
    force_slope, stress_slope : (f, 2)
        Label over prediction, by least squares in each frame, and the cosine of the angle between
        the two; NaN where there is nothing to see.
    """

    energy: np.ndarray
    force: np.ndarray
    predicted_energy: np.ndarray
    force_slope: np.ndarray
    stress_slope: np.ndarray


def residuals(
    potential: Potential, frames: list[Frame], progress: Callable[[str, int, int], None]
) -> Residuals:
    """Run a reference potential over frames."""
    tracker = potential.tracker()
    rows = []
    for done, frame in enumerate(frames, start=1):
        # Not the frame's own geometry: ten thousand neighbour lists would stay in memory.
        geometry = tracker.update(frame.positions, frame.cell, frame.pbc, frame.molecules)
        result = potential.evaluate(geometry)
        predicted = result.energies.sum() / frame.n_atoms
        difference = frame.forces - result.forces
        stress = result.virials.sum(axis=0) / frame.volume
        rows.append(
            (
                frame.energy / frame.n_atoms - predicted,
                np.sqrt((difference**2).mean()),
                predicted,
                _slope(result.forces, frame.forces, 0.05),
                _NOTHING if frame.stress is None else _slope(stress, frame.stress, 0.01),
            )
        )
        progress("reference", done, len(frames))
    return Residuals(*map(np.array, zip(*rows, strict=True)))


_NOTHING = (np.nan, np.nan)


def _slope(x, y, least: float) -> tuple[float, float]:
    """Slope of y over x through the origin, and cosine; NaN if x is small (root mean square)."""
    if (x**2).mean() < least**2 or not y.any():
        return _NOTHING
    product, square = (x * y).sum(), (x**2).sum()
    return float(product / square), float(product / np.sqrt(square * (y**2).sum()))


def check_units(r: Residuals) -> dict[str, float]:
    """Labels over predictions: the sign and the unit of energies, forces and stress.

    Returns
    -------
    dict of float
        The slopes, of what could be checked.

    Raises
    ------
    DataError
        If one is not near 1.
    """
    slopes = {}
    for name, pairs in (("forces", r.force_slope), ("stress", r.stress_slope)):
        slope, cosine = pairs[np.isfinite(pairs).all(axis=1)].T
        if len(slope):
            # Of the half that agrees best: the reference may be a poor one for the others.
            best = np.abs(cosine) >= np.median(np.abs(cosine))
            slopes[name] = float(np.median(slope[best]))
    # Slopes of all pairs: a few hundred frames say it all.
    some = np.unique(np.linspace(0, len(r.energy) - 1, 400).astype(int))
    x, y = r.predicted_energy[some], (r.energy + r.predicted_energy)[some]
    # Where all energies are alike, their differences are errors.
    if len(some) >= 10 and np.subtract(*np.quantile(x, [0.9, 0.1])) > 0.05:
        slopes["energy"] = float(theilslopes(y, x).slope)
    for name, slope in slopes.items():
        _refuse_slope(name, slope, "of what the reference predicts", SLOPES)
    return slopes


def check_stiffness(frames: list[Frame]) -> dict[str, float]:
    """Force along the bond over its length, eV/Å²: sign and unit of the forces, without a model.

    Returns
    -------
    dict of float
        Empty where all bonds have one length.

    Raises
    ------
    DataError
        If bonds do not pull back as those of hydrogen do.
    """
    length, slope, _ = projected_forces(frames, Weights())
    order = np.argsort(length)[np.unique(np.linspace(0, len(length) - 1, 600).astype(int))]
    if len(order) < 10 or np.subtract(*np.quantile(length[order], [0.9, 0.1])) < 0.005:
        return {}
    stiffness = float(theilslopes(slope[order], length[order]).slope)
    _refuse_slope("forces", stiffness, "eV/Å² along the bond, which is 36 in H2", STIFFNESS)
    return {"stiffness": stiffness}


def _refuse_slope(name: str, slope: float, of_what: str, limits: tuple[float, float]) -> None:
    if slope < 0.0:
        key = f"read.{name}_sign" if name != "energy" else "the sign of energies"
        raise DataError(f"The sign of {name} is wrong, {slope:.3g} {of_what}: see {key}.")
    if not limits[0] < slope < limits[1]:
        raise DataError(f"The unit of {name} is wrong, {slope:.3g} {of_what}: see read.{name}.")


class OutlierSection(Section):
    """Which frames stick out: a robust rule on what a reference leaves of their labels.

    A frame is set aside if, within its family, its energy residual (per atom) is farther from the
    median than `k` scaled median absolute deviations, on either side, or the logarithm of its force
    residual (root mean square) is above the median by more than that. Scaled: times 1.4826, which
    makes it the standard deviation of a normal distribution.

    Attributes
    ----------
    k : deviations
    within : "family", or "source" for all frames alike
    least : families of fewer frames than this are judged together
    floor_energy : deviation of energies that is taken if the frames' own is smaller, eV/atom
    floor_force : the same of the logarithm of the force residual
    """

    k: PositiveFloat = 5.0
    within: Literal["family", "source"] = "family"
    least: PositiveInt = 20
    floor_energy: float = Field(0.001, ge=0)
    floor_force: float = Field(0.1, ge=0)

    def outliers(self, r: Residuals, families: list[str]) -> list[str]:
        """Why each frame sticks out; an empty string if it does not."""
        names, counts = np.unique(families, return_counts=True)
        small = set(names[counts < self.least].tolist()) if self.within == "family" else set(names)
        key = np.array(["" if name in small else name for name in families])
        out = [""] * len(families)
        log_force = np.log(np.maximum(r.force, 1e-12))
        for name in sorted(set(key.tolist())):
            mine = np.flatnonzero(key == name)
            who = f"family {name}" if name else "the frames judged together"
            energy, energy_scale = _centred(r.energy[mine], self.floor_energy)
            force, force_scale = _centred(log_force[mine], self.floor_force)
            for i, e, f in zip(mine, energy / energy_scale, force / force_scale, strict=True):
                phrases = []
                if abs(e) > self.k:
                    phrases.append(
                        f"energy residual {e:+.1f} deviations ({1e3 * energy_scale:.2g} meV/atom) "
                        f"from the median of {who}, more than {self.k:g}"
                    )
                if f > self.k:
                    phrases.append(
                        f"force residual of {1e3 * r.force[i]:.0f} meV/Å, {f:.1f} deviations (a "
                        f"factor of {np.exp(force_scale):.2f} each) above the median of {who}, "
                        f"more than {self.k:g}"
                    )
                out[i] = "; ".join(phrases)
        return out


def _centred(values, floor: float):
    """Values minus their median, and their scaled median absolute deviation."""
    scale = max(float(median_abs_deviation(values, scale="normal")), floor, 1e-12)
    return values - np.median(values), scale
