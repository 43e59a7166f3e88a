"""Isobars, isochores and isotherms that the states of runs lie on, and neighbours along them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from ase_hmlp.analysis.statistics import estimate
from ase_hmlp.analysis.thermodynamics import StateSamples

#: Pressures (GPa) and temperatures (K) that nothing held and that differ by no more than this are
#: one isobar or isotherm.
SAME_PRESSURE, SAME_TEMPERATURE = 1.0, 10.0

#: Constant volumes that differ by no more than this share are one isochore: the pressure changes by
#: as small a share of the bulk modulus, less than any mean over a run is known to.
SAME_VOLUME = 1e-5

#: Digits to which what was asked for is compared.
DIGITS = 6


@dataclass(frozen=True, eq=False)
class Line:
    """States of one phase at one pressure, volume or temperature.

    Attributes
    ----------
    phase : str
        Empty where it is unknown.
    value : float, GPa, Å³ per atom or K
        What was asked for, or else the mean.
    members : (k,) array
        Indices of the states.
    """

    phase: str
    value: float
    members: np.ndarray


@dataclass(frozen=True, eq=False)
class Step:
    """Neighbours along an isobar or isochore.

    Attributes
    ----------
    line : Line
    states : two sequences of StateSamples
        Independent runs at either of two temperatures.
    """

    line: Line
    states: tuple[Sequence[StateSamples], Sequence[StateSamples]]

    def mean(self, quantity: Callable[[StateSamples], np.ndarray]) -> float:
        """Mean of both states; see `mean_of`."""
        return 0.5 * sum(mean_of(runs, quantity) for runs in self.states)

    @property
    def apart(self) -> bool:
        """Whether their temperatures differ by more than they are known to, as far as that is."""
        first, second = (mean_of(runs, lambda run: run.temperature) for runs in self.states)
        errors = [
            estimate(run.temperature).error / len(runs) for runs in self.states for run in runs
        ]
        return first != second and not abs(second - first) < np.linalg.norm(errors)


def groups(values, tolerance: float, asked=None) -> list[np.ndarray]:
    """Indices of values that belong together.

    Values that were asked for belong together where they are equal. Others belong to one that was
    asked for within half the tolerance, or else together where no two of them differ by more than
    the tolerance (complete linkage).

    Parameters
    ----------
    values : (n,) array
    tolerance : float
    asked : (n,) array of bool, optional
        Which of them were asked for; none if not given.
    """
    values = np.asarray(values, dtype=float)
    asked = np.zeros(len(values), dtype=bool) if asked is None else np.asarray(asked, dtype=bool)
    labels = np.empty(len(values), dtype=int)
    rounded = np.array([float(f"{value:.{DIGITS}g}") for value in values[asked]])
    targets, labels[asked] = np.unique(rounded, return_inverse=True)
    left = []
    for k in np.flatnonzero(~asked):
        distances = abs(targets - values[k])
        if len(targets) and distances.min() <= 0.5 * tolerance:
            labels[k] = distances.argmin()
        else:
            left.append(k)
    if len(left) > 1:
        clusters = fcluster(linkage(values[left, None], "complete"), tolerance, "distance")
        labels[left] = len(targets) + clusters
    else:
        labels[left] = len(targets)
    found = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return sorted(found, key=lambda members: values[members].mean())


def lines(runs: Sequence[StateSamples], chosen, values, tolerance: float, asked=None) -> list[Line]:
    """Isobars, isochores or isotherms, phase by phase.

    Parameters
    ----------
    runs : sequence of StateSamples
    chosen : (n,) array of bool
        Which of the runs.
    values, tolerance, asked
        See `groups`; of all runs.
    """
    values, phases = np.asarray(values, dtype=float), np.array([run.phase for run in runs])
    asked = np.zeros(len(runs), dtype=bool) if asked is None else np.asarray(asked, dtype=bool)
    found = []
    for phase in np.unique(phases):
        mine = np.flatnonzero(chosen & (phases == phase))
        for group in groups(values[mine], tolerance, asked[mine]):
            members = mine[group]
            targets = members[asked[members]]
            value = values[targets[0]] if len(targets) else values[members].mean()
            found.append(Line(str(phase), float(value), members))
    return found


def neighbours(runs: Sequence[StateSamples], line: Line, isotherms: Sequence[Line]) -> list[Step]:
    """Successive states along an isobar or isochore, where their temperatures are apart.

    Parameters
    ----------
    runs : sequence of StateSamples
    line : Line
    isotherms : sequence of Line
        Runs of the line that share one are one state.
    """
    states = [np.intersect1d(line.members, isotherm.members) for isotherm in isotherms]
    chosen = [[runs[k] for k in members] for members in states if len(members)]
    chosen.sort(key=lambda state: mean_of(state, lambda run: run.temperature))
    steps = [Step(line, pair) for pair in pairwise(chosen)]
    return [step for step in steps if step.apart]


def mean_of(runs: Sequence[StateSamples], quantity: Callable[[StateSamples], np.ndarray]) -> float:
    """Mean over runs, all of one weight, of a quantity's mean along each.

    Parameters
    ----------
    runs : sequence of StateSamples
    quantity : callable
        Takes a run, returns its samples (s,).
    """
    return float(np.mean([quantity(run).mean() for run in runs]))
