"""Mean-squared displacement of molecules, their diffusion, and whether the whole is a liquid."""

from __future__ import annotations

import numpy as np

from ase_hmlp.analysis import dynamics_figures as figures
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.statistics import FEWEST, BlockedMean
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.errors import TooFewFramesError

#: Lags in a level, in its own strides; the upper half is what straight lines are fitted to.
LAGS = 16

#: In a liquid molecules get farther than this, in distances of nearest neighbours. In a crystal
#: that is about to melt (Lindemann) it is some 0.28.
LEFT_ITS_SITE = 0.4

#: Exponent of time: 0 in a crystal, 1 in a liquid.
DIFFUSIVE = 0.5

#: Time (ps) in which a molecule has rattled in its cage some times, and would have left that of a
#: liquid.
RATTLED = 0.3

#: Standard errors that a verdict must be clear of its bound by.
CLEAR = 2.0


class Displacements:
    """Second moments of displacements over lags that grow with the trajectory, in bounded memory.

    Levels of a multiple-tau correlator (Ramirez and others, J. Chem. Phys. 133, 154103, 2010,
    without their averaging): each remembers the last `LAGS` positions, every one twice as far apart
    as in the level below. Origins are every stride of a level.

    Parameters
    ----------
    weights : (m,) array
        Of the mean displacement, which is taken off.
    """

    def __init__(self, weights):
        self._weights = np.asarray(weights, dtype=float) / np.sum(weights)
        self._frames = 0
        self._past: list[np.ndarray] = []
        self.moments: list[BlockedMean] = []

    def add(self, positions) -> None:
        """Take in a frame.

        Parameters
        ----------
        positions : (m, 3) array
            Without jumps.
        """
        positions, frame = np.array(positions, dtype=float), self._frames
        if frame == 0:
            self._first = positions
        # Frame 12 = 3 * 2^2 is the third of level 2, sixth of level 1, twelfth of level 0.
        for level in range(max(1, (frame & -frame).bit_length())):
            if level == len(self._past):
                self._past.append(np.empty((LAGS, *positions.shape)))
                self._past[level][0] = self._first
                self.moments.append(BlockedMean())
            self._add(level, frame >> level, positions)
        self._frames += 1

    def _add(self, level: int, number: int, positions) -> None:
        past = self._past[level]
        if number >= LAGS:
            lags = self.lags(level) >> level
            moved = positions - past[(number - lags) % LAGS]
            moved -= np.einsum("m,lmc->lc", self._weights, moved)[:, None]
            self.moments[level].add(np.einsum("lma,lmb->lab", moved, moved) / len(positions))
        past[number % LAGS] = positions

    def lags(self, level: int) -> np.ndarray:
        """Lags of a level in frames, as in ``moments[level]``; shorter ones are in those below."""
        return np.arange(1 if level == 0 else LAGS // 2, LAGS + 1) << level


def phase_verdict(exponent: float, exponent_error: float, reach: float, time: float) -> str:
    """Name the phase.

    Parameters
    ----------
    exponent, exponent_error : float
        d ln MSD / d ln t at the longest times.
    reach : float
        Root mean square displacement then, in distances of nearest neighbours.
    time : float, ps
        How long that is.

    Returns
    -------
    {"liquid", "solid", "undecided"}
    """
    if not np.isfinite(exponent_error):
        return "undecided"
    if exponent - CLEAR * exponent_error > DIFFUSIVE and reach > LEFT_ITS_SITE:
        return "liquid"
    bound = exponent + CLEAR * exponent_error < DIFFUSIVE and reach < LEFT_ITS_SITE
    if bound and time >= RATTLED:
        return "solid"
    return "undecided"


class Diffusion(Analysis):
    """Mean-squared displacement of centres of mass, diffusion coefficient, solid or liquid.

    The drift of the whole is taken off. Displacements are counted in fractions of the cell, where
    the breathing of a barostat does not appear, and turned into lengths by the mean cell; positions
    unwrapped with the momentary cell would scatter the more the farther a molecule has come (von
    Bülow, Bullerjahn and Hummer, J. Chem. Phys. 153, 021101, 2020).

    D is a sixth of the slope between t/2 and t, t about a seventeenth of the trajectory (so that
    enough blocks longer than t are left for an error). Liquid: the root mean square displacement is
    above 0.4 nearest-neighbour distances ``(sqrt(2) V / m)^(1/3)``, and d ln MSD / d ln t above 0.5
    by two standard errors; solid: both below, t at least 0.3 ps; else undecided. D is that of this
    cell: for the infinite system add ``2.84 kT / (6 pi eta L)`` (Yeh and Hummer 2004).

    Memory: 0.2 kB per atom for each doubling of the trajectory; 2.7 kB at 16,000 frames.
    """

    name = "diffusion"

    def start(self, trajectory: Trajectory) -> None:
        """Refuse a trajectory without time, or, while it is read, frames too sparse to follow.

        Raises
        ------
        TimestepError
        """
        self._timestep = trajectory.require_timestep("diffusion")
        trajectory.require_paths("diffusion")
        masses = trajectory.first.get_masses()[trajectory.molecules].sum(axis=1)
        self._displacements = Displacements(masses)
        self._cell = np.zeros((3, 3))
        self._volume = 0.0
        self._frames = 0
        self._molecules = len(masses)

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        fractional = np.linalg.solve(snapshot.cell.T, snapshot.centres_of_mass.T).T
        self._displacements.add(fractional)
        self._cell += snapshot.cell
        self._volume += snapshot.volume
        self._frames += 1

    def result(self) -> Result:
        """Verdict as a note; quantities; table ``diffusion``: MSD by lag."""
        moments = [m for m in self._displacements.moments if m.samples]
        if not moments:
            raise TooFewFramesError(
                f"Diffusion needs at least {LAGS + 1} frames, and there are {self._frames}."
            )
        cell = self._cell / self._frames
        metric = cell @ cell.T

        def msd(moment):
            return np.einsum("lab,ab->l", moment, metric)

        lags, values, errors = [], [], []
        enough = [m.samples >= 2 * LAGS * FEWEST for m in moments]
        for level, moment in enumerate(moments):
            new = slice(0 if level == 0 else 1, None)  # the first lag is the last level's last
            value, error = moment.jackknife(msd)
            # Blocks shorter than the lags are not independent.
            error = error if enough[level] else np.full_like(error, np.nan)
            lags.append(self._displacements.lags(level)[new])
            values.append(value[new])
            errors.append(error[new])
        times = np.concatenate(lags) * self._timestep / 1000.0

        # The longest lags with blocks at least as long as they are.
        level = max((k for k, known in enumerate(enough) if known), default=0)
        fitted = self._displacements.lags(level) * self._timestep / 1000.0
        upper = slice(-(LAGS // 2) - 1, None)

        def line(moment):
            y, t = msd(moment)[upper], fitted[upper]
            slope = np.polyfit(t, y, 1)[0]
            grows = np.log(y[-1] / y[0]) / np.log(t[-1] / t[0]) if y[0] > 0.0 else 0.0
            return np.array([slope / 6.0, grows, np.sqrt(y[-1])])

        (d, exponent, far), errors_of = moments[level].jackknife(line)
        d_error, exponent_error, far_error = errors_of if enough[level] else (np.nan,) * 3
        neighbour = (np.sqrt(2.0) * self._volume / self._frames / self._molecules) ** (1 / 3)
        said = phase_verdict(exponent, exponent_error, far / neighbour, fitted[-1])
        return Result(
            self.name,
            f"Diffusion: {said}",
            (
                Quantity("diffusion coefficient", float(d), float(d_error), "Å²/ps"),
                Quantity("exponent of time", float(exponent), float(exponent_error), ""),
                Quantity("rms displacement", float(far), float(far_error), "Å"),
                Quantity("after", float(fitted[-1]), float("nan"), "ps"),
                Quantity("nearest-neighbour distance", neighbour, float("nan"), "Å"),
            ),
            (
                Table(
                    self.name,
                    (
                        Column("time_ps", times, "time (ps)"),
                        Column(
                            "msd_A2",
                            np.concatenate(values),
                            "mean-squared displacement (Å²)",
                            np.concatenate(errors),
                        ),
                    ),
                ),
            ),
            self._notes(said, float(fitted[-1]), enough[level]),
            draw=figures.displacement,
        )

    def _notes(self, said: str, longest: float, known: bool) -> tuple[str, ...]:
        text = (
            f"Verdict: {said}, over {longest:.2g} ps. Liquid: displaced by more than "
            f"{LEFT_ITS_SITE:g} nearest-neighbour distances, and growing faster than "
            f"t^{DIFFUSIVE:g}; solid: neither, for {RATTLED:g} ps or more; undecided where the two "
            f"disagree or the exponent is within {CLEAR:g} standard errors of {DIFFUSIVE:g}."
        )
        if said == "solid":
            text += " A liquid that flows too slowly to be seen in this time looks the same."
        if known:
            return (text,)
        frames = LAGS + 2 * LAGS * FEWEST
        return (text, f"Too short for errors: they need {frames} frames.")
