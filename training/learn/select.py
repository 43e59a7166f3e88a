"""Selection: which of the structures found are worth labelling.

Three questions, none of which a person has to answer:

1. Is the potential uncertain of it? The largest predicted deviation of an atom's energy is held
   against a threshold, by default one that the first potential sets on its own training frames;
   a structure at which a run left the domain counts as uncertain.
2. Is it new? Some atom's environment must be farther from all that is known than frames of the
   training set are from each other.
3. Does it differ from the others selected? Frames are taken one by one, each the one whose worst
   atom has the largest deviation times distance from all that is known *or taken already*: greedy
   k-centres (Gonzalez, Theor. Comput. Sci. 38, 293, 1985) weighted by the uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from ase_hmlp.model_io import Model
from ase_hmlp.training.config import TrainingConfig
from ase_hmlp.training.frames import Frame
from ase_hmlp.training.learn.config import SelectSection
from ase_hmlp.training.learn.environments import (
    deviations,
    environments,
    nearest,
    typical_separation,
)
from ase_hmlp.training.learn.trajectories import Trajectory

#: Environments nearer than this, in kernel widths, are the same: structures are written with
#: rounded coordinates, and distances to many come from a difference of large numbers.
RESOLUTION = 1e-4

#: Trips at a structure the potential does not know, however certain it is.
UNKNOWN = ("bond", "contact", "other")


@dataclass(frozen=True, eq=False)
class Selection:
    """What a round found; c candidates, t frames of the training set, k chosen.

    Attributes
    ----------
    threshold : float, eV
    separation : float, kernel widths; a frame nearer than this to what is known is not new
    trajectory, snapshot : (c,) which structure each candidate is
    deviation : (c,) eV, of the atom with the largest
    tripped : (c,) bool, at which a run left the domain
    refused : (c,) bool, with bonds that the training configuration leaves out
    distance : (c,) kernel widths from the training set, of the atom farthest from it; NaN for
        candidates that are not uncertain
    chosen : (k,) candidates, in the order they were taken
    chosen_distance : (k,) kernel widths from what was known or taken before
    known_map, candidate_map : (t, 2), (c, 2), the two principal components in which the average
        environments of the training frames differ most
    """

    threshold: float
    separation: float
    trajectory: np.ndarray
    snapshot: np.ndarray
    deviation: np.ndarray
    tripped: np.ndarray
    refused: np.ndarray
    distance: np.ndarray
    chosen: np.ndarray
    chosen_distance: np.ndarray
    known_map: np.ndarray
    candidate_map: np.ndarray

    @property
    def uncertain(self) -> np.ndarray:
        """Candidates (c,) worth a look: above the threshold, or where a run left the domain."""
        return ((self.deviation > self.threshold) | self.tripped) & ~self.refused


def uncertainty_threshold(model: Model, frames: Sequence[Frame], always, quantile: float) -> float:
    """What the potential's uncertainty is on its own training frames.

    Parameters
    ----------
    model : Model
    frames : sequence of Frame
    always : collection of str
        Families that pin down limits, which do not count unless there are no others.
    quantile : float
        Of the largest deviation (eV) in each frame.
    """
    thermal = [f for f in frames if f.group not in always] or frames
    largest = [deviations(model.potential, frame).max() for frame in thermal]
    return float(np.quantile(largest, quantile))


def weighted_centres(
    frames: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    known: np.ndarray,
    separation: float,
    n: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose frames that are uncertain, and far from what is known and from each other.

    Parameters
    ----------
    frames : sequence of (a, q) arrays
        Environments of the atoms of each candidate.
    weights : sequence of (a,) arrays
        How uncertain each is.
    known : (k, q) array
        Environments that need no candidate.
    separation : float
        Candidates without an atom farther than this from all that is known or chosen are left.
    n : int
        Most to choose.

    Returns
    -------
    chosen : (m,) indices of frames, in the order they were chosen; m <= n
    distance : (m,) of the farthest atom of each, when it was chosen
    """
    if not len(frames) or n < 1:
        return np.zeros(0, dtype=int), np.zeros(0)
    first = np.cumsum([0, *(len(f) for f in frames[:-1])])
    points, weight = np.vstack(frames), np.concatenate(weights)
    # Where nothing is known everything is equally far, and the most uncertain comes first.
    distance = nearest(points, known) if len(known) else np.full(len(points), 2 * separation + 1)
    chosen: list[int] = []
    reach: list[float] = []
    while len(chosen) < n:
        farthest = np.maximum.reduceat(distance, first)
        score = np.maximum.reduceat(weight * distance, first)
        score[farthest <= max(separation, RESOLUTION)] = -np.inf
        best = int(score.argmax())
        if score[best] == -np.inf:
            break
        chosen.append(best)
        reach.append(float(farthest[best]))
        np.minimum(distance, cdist(points, frames[best]).min(axis=1), out=distance)
    return np.array(chosen, dtype=int), np.array(reach)


def select(
    model: Model,
    frames: Sequence[Frame],
    trajectories: Sequence[Trajectory],
    threshold: float,
    settings: SelectSection,
    training: TrainingConfig,
) -> Selection:
    """Select from the snapshots of an exploration.

    Parameters
    ----------
    model : Model
        That was explored with.
    frames : sequence of Frame
        What it was trained on.
    trajectories : sequence of Trajectory
    threshold : float, eV
    settings : SelectSection
    training : TrainingConfig
        Says which bonds the fit would leave out.
    """
    potential = model.potential
    known = [environments(potential, frame) for frame in frames]
    separation = settings.separation * typical_separation(known)
    index = [(t, k) for t, trajectory in enumerate(trajectories) for k in range(len(trajectory))]
    trajectory, snapshot = np.array(index, dtype=int).reshape(-1, 2).T
    deviation = np.array([trajectories[t].deviations[k].max() for t, k in index])
    tripped = np.array([_tripped(trajectories[t], k) for t, k in index], dtype=bool)
    refused = np.zeros(len(index), dtype=bool)
    means = []
    near: dict[int, np.ndarray] = {}
    for c, (t, k) in enumerate(index):
        frame = trajectories[t].frame(k)
        bonds = np.linalg.norm(frame.bond_vectors(), axis=1)
        refused[c] = bonds.min() < training.data.min_bond or bonds.max() > training.data.max_bond
        seen = environments(potential, frame)
        means.append(seen.mean(axis=0))
        if (deviation[c] > threshold or tripped[c]) and not refused[c]:
            near[c] = seen
    everything = np.vstack(known)
    distance = np.full(len(index), np.nan)
    for c, seen in near.items():
        distance[c] = nearest(seen, everything).max()
    candidates = np.array(list(near), dtype=int)
    weights = [trajectories[index[c][0]].deviations[index[c][1]] for c in near]
    chosen, reach = weighted_centres(
        list(near.values()), weights, everything, separation, settings.frames
    )
    known_map, candidate_map = _maps(np.array([k.mean(axis=0) for k in known]), np.array(means))
    return Selection(
        threshold,
        separation,
        trajectory,
        snapshot,
        deviation,
        tripped,
        refused,
        distance,
        candidates[chosen],
        reach,
        known_map,
        candidate_map,
    )


def _tripped(trajectory: Trajectory, k: int) -> bool:
    trip = trajectory.trip
    return trip is not None and trip.kind in UNKNOWN and k == len(trajectory) - 1


def _maps(known: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of average environments."""
    centre = known.mean(axis=0)
    axes = np.linalg.svd(known - centre, full_matrices=False)[2][:2].T
    return (known - centre) @ axes, (candidates.reshape(-1, len(centre)) - centre) @ axes
