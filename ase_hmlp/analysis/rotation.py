"""How molecules turn: autocorrelation of angular momentum and of orientation.

Zong, Wiebe and Ackland 2020, "Nature of Phase I": a free rotor keeps its angular momentum for
longer than a rotation; where rotation is hindered it is lost sooner; where it turns negative, the
molecule swings back: it librates.
"""

from __future__ import annotations

from math import ceil, pi

import numpy as np
from ase import units
from scipy.signal import fftconvolve
from scipy.special import dawsn

from ase_hmlp.analysis import dynamics_figures as figures
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.segments import Segments
from ase_hmlp.analysis.statistics import FEWEST, BlockedMean, estimate
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.analysis.vibron import reduced_masses
from ase_hmlp.errors import AnalysisError, TimestepError, TooFewFramesError

#: A molecule librates where the autocorrelation of its angular momentum falls below minus this.
LIBRATING = 0.05

#: It is a free rotor where more than this is left of it after one rotation.
FREE = float(np.exp(-1.0))

#: Standard errors that a verdict must be clear of its bound by.
CLEAR = 2.0

#: Fewest frames in a rotation.
_FRAMES_PER_TURN = 8

#: Molecules transformed at a time: what bounds the memory of a transform.
_BATCH = 64


def angular_momenta(bonds, bond_velocities, reduced) -> np.ndarray:
    """Angular momentum of each molecule about its centre of mass.

    Parameters
    ----------
    bonds, bond_velocities : (m, 3) arrays
        From the first atom of each molecule to the second.
    reduced : (m,) array
        Reduced masses.

    Returns
    -------
    (m, 3) array, in the product of the units
    """
    return np.asarray(reduced)[:, None] * np.cross(bonds, bond_velocities)


def second_rank(axes) -> np.ndarray:
    """Tensors whose scalar product is P2 of the angle between axes.

    Parameters
    ----------
    axes : (..., 3) array of unit vectors

    Returns
    -------
    (..., 5) array
        ``second_rank(u) @ second_rank(v) == (3 (u.v)^2 - 1) / 2``.
    """
    x, y, z = np.moveaxis(np.asarray(axes), -1, 0)
    off = np.sqrt(3.0)
    # Spherical harmonics of second rank, real, in Racah's normalisation.
    parts = (
        off * x * y,
        off * y * z,
        off * z * x,
        0.5 * off * (x * x - y * y),
        0.5 * (3.0 * z * z - (x * x + y * y + z * z)),
    )
    return np.stack(parts, axis=-1)


def correlate(segment, lags: int) -> np.ndarray:
    """Mean of ``x(t).x(t + l)`` over origins t and molecules.

    Parameters
    ----------
    segment : (n, m, k) array, n > lags
        Origins are the first ``n - lags`` frames, the same for every lag.
    lags : int

    Returns
    -------
    (lags + 1,) array
    """
    origins = len(segment) - lags
    total = np.zeros(lags + 1)
    for start in range(0, segment.shape[1], _BATCH):
        piece = segment[:, start : start + _BATCH]
        product = fftconvolve(piece, piece[:origins][::-1], mode="valid", axes=0)
        total += product.sum(axis=(1, 2), dtype=float)
    return total / (origins * segment.shape[1])


def free_rotor_orientation(times, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Orientational autocorrelation of classical linear rotors in equilibrium that nothing hinders.

    Angular velocities w have the density ``w / w0^2 exp(-w^2 / 2 w0^2)``, so that ``<cos w t> = 1 -
    sqrt(2) w0 t D(w0 t / sqrt(2))`` with Dawson's integral D.

    Parameters
    ----------
    times : (n,) array, fs
    period : float, fs
        2 pi over the root mean square angular velocity, ``sqrt(2) w0``.

    Returns
    -------
    c1, c2 : (n,) arrays
        ``<u(0).u(t)>`` and ``<P2(u(0).u(t))> = 1/4 + 3/4 <cos 2 w t>``.
    """

    def mean_cosine(x):
        return 1.0 - np.sqrt(2.0) * x * dawsn(x / np.sqrt(2.0))

    x = np.asarray(times) * (pi * np.sqrt(2.0) / period)
    return mean_cosine(x), 0.25 + 0.75 * mean_cosine(2.0 * x)


def verdict(left: float, left_error: float, lowest: float, lowest_error: float) -> str:
    """Name the motion.

    Parameters
    ----------
    left, left_error : float
        Normalised autocorrelation of the angular momentum after one thermal rotation; NaN where it
        is not known so far.
    lowest, lowest_error : float
        Its smallest value.

    Returns
    -------
    {"librating", "free rotor", "hindered", "undecided"}
        The last where a bound is nearer than `CLEAR` standard errors, or errors are unknown.
    """
    if not np.isfinite(lowest_error):
        return "undecided"
    if lowest + CLEAR * lowest_error < -LIBRATING:
        return "librating"
    if lowest - CLEAR * lowest_error < -LIBRATING:
        return "undecided"
    if not abs(left - FREE) >= CLEAR * left_error:  # NaN included
        return "undecided"
    return "free rotor" if left > FREE else "hindered"


class Rotation(Analysis):
    """Autocorrelations of angular momentum L and of the axes u, and what they say.

    ``C_L(t) = <L(0).L(t)> / <L^2>``, ``C_1 = <u(0).u(t)>``, ``C_2 = <P2(u(0).u(t))>``, means over
    molecules and origins. The thermal rotation takes ``2 pi / sqrt(<w^2>)``, w the angular
    velocity, from the run itself. In this order, with every bound clear by two standard errors:

    - librating: C_L falls below -0.05;
    - free rotor: C_L after one rotation is above 1/e;
    - hindered: otherwise.

    A segment of twice the longest lag is kept: 22 bytes per atom and frame of it (18 kB per atom
    for 1 ps and a frame every 2.5 fs).

    Parameters
    ----------
    longest : float, fs
        Longest lag; without a whole rotation, free and hindered cannot be told apart.
    """

    name = "rotation"

    def __init__(self, longest: float = 1000.0):
        self._longest = longest
        self._momentum, self._orientation = BlockedMean(), BlockedMean()
        self._temperature: list[float] = []
        self._square_rate = self._turning = self._moving = 0.0

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {"longest_fs": self._longest}

    def start(self, trajectory: Trajectory) -> None:
        """Refuse a trajectory without velocities or time.

        Raises
        ------
        MissingVelocitiesError, TimestepError
        """
        trajectory.require_velocities("the autocorrelation of angular momentum")
        self._timestep = trajectory.require_timestep("the autocorrelation of angular momentum")
        self._mu = reduced_masses(trajectory.first.get_masses(), trajectory.molecules)
        self._lags = ceil(self._longest / self._timestep)
        self._segments = Segments(2 * self._lags, self._lags)

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        momenta = angular_momenta(snapshot.bonds, snapshot.bond_velocities, self._mu)
        inertia = self._mu * snapshot.bond_lengths**2
        squares = (momenta**2).sum(axis=1)
        energy = np.mean(squares / inertia) / units.fs**2  # twice L^2 / 2 I
        self._temperature.append(energy / (2.0 * units.kB))
        self._square_rate += float(np.mean(squares / inertia**2))
        self._turning += float(np.sum(squares / inertia))
        self._moving += float(self._mu @ (snapshot.bond_velocities**2).sum(axis=1))
        axes = snapshot.axes
        segment = self._segments.add(np.concatenate([momenta, axes, second_rank(axes)], axis=1))
        if segment is not None:
            self._momentum.add(correlate(segment[:, :, :3], self._lags))
            c1 = correlate(segment[:, :, 3:6], self._lags)
            c2 = correlate(segment[:, :, 6:], self._lags)
            self._orientation.add([c1, c2])

    def result(self) -> Result:
        """Verdict as a note; quantities; table ``rotation``: the three functions and free ones."""
        frames = len(self._temperature)
        if not self._momentum.samples:
            raise TooFewFramesError(
                f"Autocorrelations over {self._longest:g} fs need at least {2 * self._lags} frames "
                f"{self._timestep:g} fs apart, and there are {frames}: run longer, or ask for a "
                "shorter longest lag."
            )
        if self._turning < 1e-12 * self._moving:  # rounding
            raise AnalysisError("No molecule turns: there is no angular momentum to correlate.")
        period = 2.0 * pi / np.sqrt(self._square_rate / frames)
        times = self._timestep * np.arange(self._lags + 1)
        if period < _FRAMES_PER_TURN * self._timestep:
            raise TimestepError(
                f"Molecules turn once in {period:.3g} fs, and frames are {self._timestep:.3g} fs "
                f"apart: write at least {_FRAMES_PER_TURN} frames a turn."
            )
        momentum, momentum_error = self._momentum.jackknife(lambda c: c / c[0])
        left, left_error = self._momentum.jackknife(
            lambda c: np.asarray(np.interp(period, times, c / c[0], right=np.nan))
        )
        lowest_at = int(momentum.argmin())
        lowest, lowest_error = momentum[lowest_at], momentum_error[lowest_at]
        lifetime, lifetime_error = self._momentum.jackknife(
            lambda c: np.asarray(first_below(times, c / c[0]))
        )
        temperature = estimate(self._temperature)
        said = verdict(left, left_error, lowest, lowest_error)
        (c1, c2), (c1_error, c2_error) = self._orientation.jackknife(lambda c: c)
        free1, free2 = free_rotor_orientation(times, period)
        nan = float("nan")
        table = Table(
            self.name,
            (
                Column("time_fs", times, "time (fs)"),
                Column("momentum", momentum, "angular momentum", momentum_error),
                Column("axis", c1, "axis", c1_error),
                Column("axis_p2", c2, "axis, P₂", c2_error),
                Column("axis_free", free1, "axis, free rotor"),
                Column("axis_p2_free", free2, "axis, P₂, free rotor"),
            ),
        )
        return Result(
            self.name,
            f"Rotation: {said}",
            (
                Quantity("thermal rotation takes", period, nan, "fs"),
                Quantity("momentum left after it", float(left), float(left_error), ""),
                Quantity("lowest autocorrelation", float(lowest), float(lowest_error), ""),
                Quantity("falls to 1/e after", float(lifetime), float(lifetime_error), "fs"),
                Quantity("temperature of rotation", temperature.value, temperature.error, "K"),
            ),
            (table,),
            self._notes(said, period > times[-1]),
            draw=figures.rotation,
        )

    def _notes(self, said: str, beyond: bool) -> tuple[str, ...]:
        notes = [
            f"Verdict: {said}. Librating: the autocorrelation of angular momentum falls below "
            f"-{LIBRATING:g}; free rotor: above 1/e after one thermal rotation; else hindered; "
            f"undecided where a bound is nearer than {CLEAR:g} standard errors."
        ]
        if beyond:
            notes.append(
                "One rotation takes longer than the longest lag: ask for a longer one to tell free "
                "from hindered."
            )
        if self._momentum.samples < FEWEST:
            needed = (FEWEST + 1) * self._lags * self._timestep / 1000.0
            notes.append(f"Too short for errors: they need {needed:.1f} ps with this longest lag.")
        return tuple(notes)


def first_below(times, values, bound: float = FREE) -> float:
    """Time at which a function first falls below a bound, linear between points.

    Parameters
    ----------
    times, values : (n,) arrays
    bound : float

    Returns
    -------
    float
        NaN if it never does.
    """
    below = np.flatnonzero(np.asarray(values) < bound)
    if not len(below):
        return float("nan")
    k = int(below[0])
    if k == 0:
        return float(times[0])
    share = (values[k - 1] - bound) / (values[k - 1] - values[k])
    return float(times[k - 1] + share * (times[k] - times[k - 1]))
