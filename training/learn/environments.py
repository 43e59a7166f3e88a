"""What the potential sees of each atom's surroundings, and how far apart that is.

`environments` is the one place in this package that looks inside a potential's levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min

from ase_hmlp.geometry import Geometry
from ase_hmlp.potential import Potential
from ase_hmlp.training.frames import Frame

#: Training frames whose distance to the others is looked at; an even sample is enough.
SAMPLE = 100


def frame_of(positions, cell, molecules) -> Frame:
    """A periodic structure without labels.

    Parameters
    ----------
    positions, cell : (n, 3), (3, 3), Å
    molecules : (n / 2, 2) atom indices
    """
    return Frame(
        np.array(positions, dtype=float),
        np.array(cell, dtype=float),
        np.ones(3, dtype=bool),
        np.asarray(molecules, dtype=np.intc),
        np.nan,
        np.full((len(positions), 3), np.nan),
        None,
        group="",
        source="",
    )


def geometry_of(potential: Potential, frame: Frame) -> Geometry:
    """Neighbour lists with the potential's cutoff."""
    return frame.geometry(potential.cutoff)


def environments(potential: Potential, frame: Frame) -> np.ndarray:
    """What the kernel sees of each atom: its molecule's surroundings.

    Parameters
    ----------
    potential : Potential
    frame : Frame

    Returns
    -------
    (n, q) array
        The inputs of the environment level's Gaussian kernel, in units of its
        widths: where two atoms are one apart, the potential calls them similar.
    """
    if potential.environment is None:
        raise ValueError("a potential without an environment level compares no surroundings")
    geometry = geometry_of(potential, frame)
    regressor = potential.environment.regressor
    y = potential.fingerprints(geometry) @ regressor.transform.T
    if regressor.stretch_width > 0:
        y = np.column_stack([y, potential.held_length(geometry) / regressor.stretch_width])
    of_atom = np.empty((geometry.n_atoms, y.shape[1]))
    of_atom[geometry.molecules] = y[:, None]
    return of_atom


def deviations(potential: Potential, frame: Frame) -> np.ndarray:
    """Predicted standard deviation of each atom's energy (n,), eV."""
    return potential.deviations(geometry_of(potential, frame))


def nearest(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Distance (p,) of each point (p, q) to the nearest known one (k, q)."""
    return pairwise_distances_argmin_min(points, known)[1]


def typical_separation(frames: Sequence[np.ndarray]) -> float:
    """Median distance of an atom's environment to the nearest in any other frame.

    Parameters
    ----------
    frames : sequence of (n, q) arrays, the environments of each frame
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, SAMPLE).round().astype(int))
    distances = [
        nearest(frames[k], np.vstack([*frames[:k], *frames[k + 1 :]])) for k in chosen.tolist()
    ]
    return float(np.median(np.concatenate(distances)))
