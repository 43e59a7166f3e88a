"""Power spectra of streamed signals (Welch), and lines in them.

By the Wiener-Khinchin theorem the power spectrum of a velocity is the Fourier transform of its
autocorrelation. Frequencies are wavenumbers, 1/cm.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, ceil, pi, sin

import numpy as np
from scipy.constants import speed_of_light
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize
from scipy.signal import periodogram
from scipy.special import wofz

from ase_hmlp.analysis.segments import Segments
from ase_hmlp.analysis.statistics import FEWEST, BlockedMean
from ase_hmlp.errors import AnalysisError, TimestepError, TooFewFramesError

#: Speed of light, cm/fs.
LIGHT = speed_of_light * 1e2 * 1e-15

#: Full width at half maximum of a Hann window's line, in inverse lengths of the window.
_HANN_WIDTH = 1.44

#: Points for each inverse length of the window; more than one only draws the same curve finer.
_PADDING = 4

#: Signals transformed at a time: what bounds the memory of a transform.
_BATCH = 64


class PowerSpectrum:
    """Power spectral density of signals, averaged over signals and time.

    Welch's method: Hann windows that overlap by half, transformed by `scipy.signal.periodogram`.
    One-sided, so that the integral over wavenumbers is the mean square of the signals.

    Parameters
    ----------
    timestep : float, fs
        Between frames.
    resolution : float, 1/cm
        Full width at half maximum that a line of no width gets.

    Attributes
    ----------
    length : int
        Frames in a segment. A signal takes 4 bytes for each.
    wavenumbers : (n,) array, 1/cm
    """

    def __init__(self, timestep: float, resolution: float):
        self.resolution = resolution
        self.length = max(4, ceil(_HANN_WIDTH / (LIGHT * timestep * resolution)))
        self._rate = 1.0 / (LIGHT * timestep)
        self._segments = Segments(self.length, self.length // 2)
        self._power = BlockedMean()
        self._signals = 0
        self.wavenumbers = np.fft.rfftfreq(_PADDING * self.length, 1.0 / self._rate)

    def add(self, signals) -> None:
        """Take in one frame.

        Parameters
        ----------
        signals : (k,) array
        """
        segment = self._segments.add(signals)
        if segment is None:
            return
        self._signals = segment.shape[1]
        total = np.zeros(len(self.wavenumbers))
        for start in range(0, self._signals, _BATCH):
            _, power = periodogram(
                segment[:, start : start + _BATCH],
                self._rate,
                window="hann",
                nfft=_PADDING * self.length,
                detrend=False,
                axis=0,
            )
            total += power.sum(axis=1, dtype=float)
        self._power.add(total / self._signals)

    def require_segment(self, frames: int, purpose: str) -> None:
        """Refuse a spectrum without a segment.

        Parameters
        ----------
        frames : int
            Frames there were.
        purpose : str

        Raises
        ------
        TooFewFramesError
        """
        if not self._power.samples:
            raise TooFewFramesError(
                f"{purpose} at a resolution of {self.resolution:g} 1/cm needs at least "
                f"{self.length} frames, and there are {frames}: run longer, or accept a coarser "
                f"resolution ({self.resolution * self.length / max(frames, 1):.3g} 1/cm)."
            )

    @property
    def segments(self) -> int:
        """Segments averaged over."""
        return self._power.samples

    @property
    def power(self) -> np.ndarray:
        """Power spectral density (n,), squared signal unit times cm."""
        return self._power.mean

    @property
    def error(self) -> np.ndarray:
        """Standard error of `power` (n,), by blocks of time; NaN with too few."""
        return np.broadcast_to(self._power.error, self.wavenumbers.shape)

    def line(self, low: float = 0.0, high: float = np.inf) -> Line:
        """Strongest line between two wavenumbers.

        Its errors are a jackknife over blocks of time; NaN with fewer than
        `ase_hmlp.analysis.statistics.FEWEST` segments.

        Parameters
        ----------
        low, high : float, 1/cm

        Returns
        -------
        Line

        Raises
        ------
        AnalysisError
            If the spectrum is highest where it ends.
        """
        chosen = (self.wavenumbers >= low) & (self.wavenumbers <= high)
        x = self.wavenumbers[chosen]
        # What scatters by a seventh or more has speckles, which are not to be taken for lines.
        averages = self._signals * self.segments
        smoothing = self.resolution * min(4.0, max(0.0, 50.0 / averages - 1.0))
        start = find_line(x, self.power[chosen], smoothing, self.resolution)
        near = _near(x, start, self.resolution)

        def fit(power):
            line = _fitted(x[near], power[chosen][near], start, self.resolution)
            return np.array([line.position, line.width])

        (position, width), errors = self._power.jackknife(fit)
        return Line(float(position), float(width), *map(float, errors))


@dataclass(frozen=True)
class Line:
    """A line of a spectrum.

    Attributes
    ----------
    position, width : float, 1/cm
        Width at half maximum, that of the window taken off: far below the resolution, it is zero.
    position_error, width_error : float, 1/cm
        Standard errors; NaN where unknown.
    """

    position: float
    width: float
    position_error: float = float("nan")
    width_error: float = float("nan")


def find_line(wavenumbers, power, smoothing: float, resolution: float) -> Line:
    """Fit a Lorentzian to the highest peak of a power spectrum.

    The fit sees two widths on either side of the peak, so that neighbouring bands do
    not pull.

    Parameters
    ----------
    wavenumbers : (n,) array, evenly spaced, 1/cm
    power : (n,) array
    smoothing : float, 1/cm
        Standard deviation of a Gaussian that the power is smoothed by to find the peak; the fit is
        to the power itself.
    resolution : float, 1/cm
        Width that the window gives to a line of no width.

    Returns
    -------
    Line

    Raises
    ------
    AnalysisError
        If there is no peak.
    """
    x, power = np.asarray(wavenumbers, dtype=float), np.asarray(power, dtype=float)
    if len(x) < 8 or not power.any():
        raise AnalysisError(
            "There is no line to find: the range of wavenumbers is empty, or nothing moves in it."
        )
    spacing = x[1] - x[0]
    smooth = gaussian_filter1d(power, smoothing / spacing, mode="nearest") if smoothing else power
    top = int(smooth.argmax())
    if top in (0, len(x) - 1):
        raise AnalysisError(
            f"The spectrum is highest at {x[top]:.0f} 1/cm, where the range of wavenumbers ends: "
            "there is no line in it."
        )
    below = np.flatnonzero(smooth < 0.5 * smooth[top])
    left = below[below < top].max(initial=0)
    right = below[below > top].min(initial=len(x) - 1)
    line = Line(x[top], x[right] - x[left])
    for _ in range(3):
        near = _near(x, line, resolution)
        line = _fitted(x[near], power[near], line, resolution)
    return line


def _near(x, line: Line, resolution: float) -> np.ndarray:
    """What a line is fitted to."""
    return np.abs(x - line.position) <= 2.0 * np.hypot(line.width, resolution)


def _fitted(x, power, start: Line, resolution: float) -> Line:
    """Lorentzian seen through the window, on a constant, of the largest likelihood.

    A Hann window's own line is a Gaussian to good accuracy, so that the whole is a Voigt profile. A
    power spectrum scatters in proportion to itself: the likelihood is Whittle's, ``-sum(ln S + P /
    S)``, not that of least squares.
    """
    y = power / power.max()
    reach = x[-1] - x[0]
    unit = resolution / np.sqrt(4.0 * np.log(2.0))  # sqrt(2) standard deviations of the window

    def cost(p):
        half = 0.5 * np.exp(p[1])
        z = (x - start.position - reach * p[0] + 1j * half) / unit
        w = wofz(z)
        slope_w = 2j / np.sqrt(np.pi) - 2.0 * z * w
        line, floor = np.exp(p[2]) * w.real, np.exp(p[3])
        s = line + floor
        by_s = 1.0 / s - y / s**2
        by_line = np.exp(p[2]) / unit * by_s
        gradient = [
            -reach * (by_line @ slope_w.real),
            -half * (by_line @ slope_w.imag),
            by_s @ line,
            by_s.sum() * floor,
        ]
        return np.sum(np.log(s) + y / s), np.array(gradient)

    bounds = [
        (-0.5, 0.5),
        (np.log(1e-3 * resolution), np.log(3.0 * reach)),
        (-12.0, 12.0),
        (-25.0, 2.0),
    ]
    width = max(start.width, 0.1 * resolution)
    top = -np.log(wofz(0.5j * width / unit).real)
    guess = np.clip([0.0, np.log(width), top, -4.0], *np.transpose(bounds))
    found = minimize(cost, guess, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Line(float(start.position + reach * found[0]), float(np.exp(found[1])))


def require_sampling(timestep: float, highest: float, what: str) -> None:
    """Refuse frames too far apart for a frequency.

    Parameters
    ----------
    timestep : float, fs
        Between frames.
    highest : float, 1/cm
        Highest wavenumber that may occur.
    what : str
        What it belongs to.

    Raises
    ------
    TimestepError
    """
    most = 0.5 / (LIGHT * highest)
    if timestep > most:
        raise TimestepError(
            f"Frames {timestep:.3g} fs apart show wavenumbers up to {0.5 / (LIGHT * timestep):.0f} "
            f"1/cm, and {what} may reach {highest:.0f} 1/cm: write a frame at least every "
            f"{most:.2g} fs."
        )


def verlet_corrected(wavenumber: float, timestep: float) -> float:
    """Wavenumber that a spectrum would show without the time-step error of velocity Verlet.

    A harmonic oscillator of frequency w, integrated with a step h, oscillates at w' with
    ``sin(w' h / 2) = w h / 2``: too fast, by ``(w h)^2 / 24`` to lowest order. Holds for every
    splitting that kicks and drifts alike (`VelocityVerlet`, `LangevinBAOAB`, the MTK integrators).

    Parameters
    ----------
    wavenumber : float, 1/cm
        As seen.
    timestep : float, fs
        Of the integrator.

    Returns
    -------
    float, 1/cm
    """
    turn = pi * LIGHT * timestep
    return sin(turn * wavenumber) / turn


def verlet_seen(wavenumber: float, timestep: float) -> float:
    """Inverse of `verlet_corrected`: the wavenumber that a run shows.

    Parameters
    ----------
    wavenumber : float, 1/cm
    timestep : float, fs

    Returns
    -------
    float, 1/cm
    """
    turn = pi * LIGHT * timestep
    return asin(turn * wavenumber) / turn


def error_note(spectrum: PowerSpectrum, timestep: float) -> tuple[str, ...]:
    """Say how long a run would have to be for error bars, where there are none."""
    if spectrum.segments >= FEWEST:
        return ()
    frames = spectrum.length + (FEWEST - 1) * (spectrum.length // 2)
    return (
        f"Too short for errors: they need {frames * timestep / 1000.0:.1f} ps at this resolution.",
    )
