"""Vinet's equation of state, fitted to an isotherm by what its pressures determine.

Vinet and others, J. Phys. C 19, L467 (1986), with x the cube root of V / V0:
``P = 3 K0 (1 - x) / x^2 exp(3/2 (K0' - 1) (1 - x))``.

Pressures far above zero say little of V0, K0 and K0': curves with very different ones are the same
there. What is fitted are pressure and bulk modulus at a volume amid the data, which are always
known, and x at that volume, which is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import approx_fprime, curve_fit
from scipy.stats import chi2

from ase_hmlp.errors import AnalysisError

#: V0, K0 or K0' with a relative error above this is not determined.
DETERMINED = 0.5

#: Standard errors that an infinite V0 must be away for them to be determined at all.
CERTAIN = 5.0

#: How close x at the reference may come to its limits, V0 infinite and pressure zero.
MARGIN = 1e-3

#: Of hydrogen at some 40 GPa, a start for any of its isotherms.
USUAL = 0.6


@dataclass(frozen=True)
class VinetFit:
    """An isotherm at a volume amid its data, and at zero pressure where it is determined there.

    Attributes
    ----------
    volume : float, Å³ per atom
        The reference, without an error.
    pressure, modulus : float, GPa
        There; the modulus is the isothermal bulk modulus.
    x : float
        Cube root of ``volume / V0``. Draws the curve even where it is not determined.
    errors : (2,) array, GPa
        Standard errors of pressure and modulus.
    zero, zero_errors : (3,) arrays
        V0 (Å³ per atom), K0 (GPa) and K0', with their standard errors; all NaN unless each of them
        is determined.
    probability : float
        Of residuals as large as these or larger, if the errors of the pressures are right; NaN
        where they are unknown.
    """

    volume: float
    pressure: float
    modulus: float
    x: float
    errors: np.ndarray
    zero: np.ndarray
    zero_errors: np.ndarray
    probability: float

    def __call__(self, volume) -> np.ndarray:
        """Pressure (GPa) at volumes (Å³ per atom)."""
        ratio = np.cbrt(np.asarray(volume) / self.volume)
        return _by_reference(ratio, self.pressure, self.modulus, self.x)

    def slope(self, volume) -> np.ndarray:
        """``dP/dV`` (GPa per Å³ per atom) at volumes (Å³ per atom)."""
        volume = np.asarray(volume)
        step = 1e-5 * volume
        return (self(volume + step) - self(volume - step)) / (2.0 * step)


def vinet(volume, v0: float, k0: float, slope: float) -> np.ndarray:
    """Pressure of Vinet's equation of state, GPa.

    Parameters
    ----------
    volume : array, Å³ per atom
    v0 : float, Å³ per atom
    k0 : float, GPa
        Bulk modulus at zero pressure.
    slope : float
        Its pressure derivative.
    """
    x = np.cbrt(np.asarray(volume) / v0)
    return 3.0 * k0 * (1.0 - x) / x**2 * np.exp(1.5 * (slope - 1.0) * (1.0 - x))


def fit_vinet(volume, pressure, error=None) -> VinetFit:
    """Fit Vinet's equation to an isotherm.

    Parameters
    ----------
    volume, pressure : (n,) arrays, Å³ per atom and GPa
        At four different volumes at least, the pressure at three of them above zero.
    error : (n,) array, GPa, optional
        Standard errors of the pressures.

    Raises
    ------
    AnalysisError
        If nothing fits.
    """
    volume, pressure = np.asarray(volume, dtype=float), np.asarray(pressure, dtype=float)
    known = error is not None and np.isfinite(error).all() and (np.asarray(error) > 0.0).all()
    reference = float(np.exp(np.log(volume).mean()))
    start = _start(np.log(volume / reference), pressure)
    try:
        found, covariance = curve_fit(
            _by_reference,
            np.cbrt(volume / reference),
            pressure,
            p0=start,
            sigma=error if known else None,
            absolute_sigma=known,
            bounds=((1e-6, 1e-6, MARGIN), (np.inf, np.inf, 1.0 - MARGIN)),
        )
    except (RuntimeError, ValueError) as exc:
        raise AnalysisError(f"Vinet's equation of state does not fit: {exc}") from exc
    amid, modulus, x = (float(value) for value in found)
    probability = float("nan")
    if known:
        residuals = (_by_reference(np.cbrt(volume / reference), *found) - pressure) / error
        probability = float(chi2.sf((residuals**2).sum(), len(pressure) - len(found)))
    return VinetFit(
        reference,
        amid,
        modulus,
        x,
        np.sqrt(np.diag(covariance))[:2],
        *_at_zero(reference, found, covariance),
        probability,
    )


def _start(logs: np.ndarray, pressure: np.ndarray) -> tuple[float, float, float]:
    """Parameters by a parabola through the logarithms of volumes and pressures."""
    above = pressure > 0.0
    if len(np.unique(logs[above])) < 3:
        raise AnalysisError(
            "Vinet's equation of state does not fit: fewer than three pressures are above zero."
        )
    _, slope, log_pressure = np.polyfit(logs[above], np.log(pressure[above]), 2)
    if not slope < 0.0:
        raise AnalysisError(
            "Vinet's equation of state does not fit: the pressure does not fall with the volume."
        )
    return float(np.exp(log_pressure)), float(-slope * np.exp(log_pressure)), USUAL


def _by_reference(ratio, pressure: float, modulus: float, x: float) -> np.ndarray:
    """Vinet's pressure by pressure and modulus (GPa) and x at a reference.

    Parameters
    ----------
    ratio : array
        Cube roots of volumes over that of the reference.
    pressure, modulus, x : float
    """
    exponent = _exponent(pressure, modulus, x)
    return pressure * (1.0 - x * ratio) / (1.0 - x) / ratio**2 * np.exp(exponent * (1.0 - ratio))


def _exponent(pressure: float, modulus: float, x: float) -> float:
    """``3/2 (K0' - 1) x``, as ``3 B / P = x / (1 - x) + 2 + 3/2 (K0' - 1) x``."""
    return 3.0 * modulus / pressure - 2.0 - x / (1.0 - x)


def _at_zero(reference: float, found, covariance) -> tuple[np.ndarray, np.ndarray]:
    """V0, K0 and K0' with errors, NaN unless all are determined."""
    unknown = np.full(3, np.nan), np.full(3, np.nan)
    x, error = found[2], np.sqrt(covariance[2, 2])
    # It is y = (x / (1 - x))^2 that is linear in the slope of the modulus, which pressures tell; V0
    # is infinite where y is zero. Where chance makes x large, its own error looks small.
    if not x * (1.0 - x) > 2.0 * CERTAIN * error:  # y over its error
        return unknown

    def logarithms(parameters):
        pressure, modulus, x = parameters
        exponent = _exponent(pressure, modulus, x)
        k0 = np.log(pressure * x**2 / (3.0 * (1.0 - x))) - exponent * (1.0 - x) / x
        return np.array([np.log(reference / x**3), k0, 1.0 + exponent / (1.5 * x)])

    derivatives = approx_fprime(found, logarithms, 1e-6 * found)
    log_v0, log_k0, slope = logarithms(found)
    values = np.array([np.exp(log_v0), np.exp(log_k0), slope])
    errors = np.sqrt(np.diag(derivatives @ covariance @ derivatives.T)) * [*values[:2], 1.0]
    return (values, errors) if (errors < DETERMINED * abs(values)).all() else unknown
