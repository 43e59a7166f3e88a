"""Vibron spectra: total and in phase (Zong, Wiebe and Ackland 2020, equations 1 and 2)."""

from __future__ import annotations

import numpy as np
from ase import units

from ase_hmlp.analysis import dynamics_figures as figures
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.spectra import (
    PowerSpectrum,
    error_note,
    require_sampling,
    verlet_corrected,
    verlet_seen,
)
from ase_hmlp.analysis.statistics import estimate
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory

#: No vibron of H2 is higher (1/cm); a lone molecule's harmonic frequency is about 4400.
HIGHEST_VIBRON = 5000.0

#: Reduced mass of H2, u.
_H2 = 0.504


def reduced_masses(masses, molecules) -> np.ndarray:
    """Reduced mass of each molecule.

    Parameters
    ----------
    masses : (n,) array, u
    molecules : (m, 2) atom indices

    Returns
    -------
    (m,) array, u
    """
    first, second = np.asarray(masses)[molecules].T
    return first * second / (first + second)


def stretching(bonds, bond_velocities) -> np.ndarray:
    """Rate of change of each bond length.

    Parameters
    ----------
    bonds, bond_velocities : (..., m, 3) arrays
        From the first atom of each molecule to the second.

    Returns
    -------
    (..., m) array, in the unit of velocities
    """
    lengths = np.linalg.norm(bonds, axis=-1)
    return np.einsum("...c,...c->...", bonds, bond_velocities) / lengths


class Vibron(Analysis):
    """Power spectra of bond stretching: of all molecules, and of their sum.

    The signal of a molecule is dr/dt, the velocity of its atoms relative to each other along the
    bond. Equation 1 of the paper is the mean of all molecules' spectra, the density of states of
    the vibron; equation 2 the spectrum of the sum over molecules, what isotropic Raman scattering
    sees. Divided by the number of molecules, and both by the mean square of dr/dt, the second is
    the first where molecules vibrate independently.

    A segment is kept in memory: 2 bytes per atom and frame of it (1.44 / c / resolution long,
    2.4 ps at 20 1/cm: 5 kB per atom with a frame every femtosecond).

    Parameters
    ----------
    resolution : float, 1/cm
        Width that a line of no width gets. Coarser spectra have smaller errors.
    low, high : float, 1/cm
        Between which the lines are sought; all of the spectrum is kept.
    integrator_step : float, fs, optional
        Time step of the run, or of its bonds if that is shorter; what the trajectory says, where
        `hmlp run` or one of ASE's integrators wrote it, if not given. If known, peaks are also
        returned as `verlet_corrected`.
    """

    name = "vibron"

    def __init__(
        self,
        resolution: float = 20.0,
        low: float = 500.0,
        high: float = np.inf,
        integrator_step: float | None = None,
    ):
        self._settings = {
            "resolution_per_cm": resolution,
            "low_per_cm": low,
            "high_per_cm": high,
            "integrator_step_fs": integrator_step,
        }
        self._resolution = resolution
        self._range = (low, high)
        self._integrator_step = integrator_step
        self._kinetic: list[float] = []
        self._square = 0.0

    def parameters(self) -> dict:
        """Settings, for the record."""
        return self._settings

    def start(self, trajectory: Trajectory) -> None:
        """Refuse a trajectory without velocities, or with frames too far apart.

        Raises
        ------
        MissingVelocitiesError, TimestepError
        """
        trajectory.require_velocities("a vibron spectrum")
        self._timestep = trajectory.require_timestep("a vibron spectrum")
        if self._integrator_step is None:
            self._integrator_step = trajectory.bond_timestep
            self._settings["integrator_step_fs"] = self._integrator_step
        self._mu = reduced_masses(trajectory.first.get_masses(), trajectory.molecules)
        highest = HIGHEST_VIBRON * np.sqrt(_H2 / self._mu.min())
        require_sampling(self._timestep, highest, "the vibron")
        self._total = PowerSpectrum(self._timestep, self._resolution)
        self._in_phase = PowerSpectrum(self._timestep, self._resolution)

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        rates = stretching(snapshot.bonds, snapshot.bond_velocities)
        self._total.add(rates)
        self._in_phase.add([rates.sum() / np.sqrt(len(rates))])
        self._kinetic.append(np.mean(self._mu * rates**2) / units.fs**2 / units.kB)
        self._square += float(np.mean(rates**2))

    def result(self) -> Result:
        """Quantities: peaks and widths, 1/cm; table ``vibron``: both spectra, normalised."""
        frames = len(self._kinetic)
        self._total.require_segment(frames, "A vibron spectrum")
        quantities: list[Quantity] = []
        notes: list[str] = []
        for name, spectrum in (("in-phase (Raman)", self._in_phase), ("total", self._total)):
            line = spectrum.line(*self._range)
            quantities += [
                Quantity(f"{name} peak", line.position, line.position_error, "1/cm"),
                Quantity(f"{name} width", line.width, line.width_error, "1/cm"),
            ]
            if self._integrator_step is not None:
                corrected = verlet_corrected(line.position, self._integrator_step)
                quantities.append(
                    Quantity(f"{name} peak, zero step", corrected, line.position_error, "1/cm")
                )
        temperature = estimate(self._kinetic)
        quantities += [
            Quantity("resolution", self._resolution, float("nan"), "1/cm"),
            Quantity("temperature of stretching", temperature.value, temperature.error, "K"),
        ]
        notes += error_note(self._total, self._timestep)
        if self._integrator_step is None:
            peak = quantities[0].value
            shifts = " and ".join(
                f"{verlet_seen(peak, step) - peak:.1f} 1/cm with a step of {step} fs"
                for step in (0.5, 0.1)
            )
            notes.append(
                "Integrators of the Verlet kind show a frequency too high, this one by "
                f"{shifts}; give the run's own step to have it corrected."
            )
        square = self._square / frames
        columns = [Column("wavenumber_per_cm", self._total.wavenumbers, "wavenumber (1/cm)")]
        for name, label, spectrum in (
            ("total_cm", "total (cm)", self._total),
            ("in_phase_cm", "in phase, Raman (cm)", self._in_phase),
        ):
            columns.append(Column(name, spectrum.power / square, label, spectrum.error / square))
        return Result(
            self.name,
            "Vibron spectrum",
            tuple(quantities),
            (Table(self.name, tuple(columns)),),
            tuple(notes),
            draw=figures.spectrum,
        )
