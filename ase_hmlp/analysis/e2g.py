"""The E2g phonon of hcp hydrogen: neighbouring layers that shear against each other.

Zong, Wiebe and Ackland 2020, Fig. 2d.
"""

from __future__ import annotations

import numpy as np

from ase_hmlp.analysis import dynamics_figures as figures
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.spectra import PowerSpectrum, error_note, require_sampling
from ase_hmlp.analysis.stacking import alternate_layers
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.errors import AnalysisError

#: No E2g phonon of H2 in the molecular phases is higher (1/cm); at 250 GPa it is near 1100.
HIGHEST_E2G = 1500.0

#: Mass of H2, u.
_H2 = 2.016


class E2gPhonon(Analysis):
    """Power spectrum of the E2g mode by projection of velocities.

    The eigenvector is fixed by symmetry: centres of mass in alternate layers move against each
    other, along either of two directions in the layers. The two signals are the projections of all
    velocities on it, ``sum_a s_a sqrt(M_a) v_a.e / sqrt(sum M)`` with s = 1 and -1 by layer;
    nothing is assumed about the size of displacements, so rotation and anharmonicity are in the
    spectrum. Layers are found in the first frame, by
    `ase_hmlp.analysis.stacking.alternate_layers`.

    Memory does not depend on the number of atoms.

    Parameters
    ----------
    resolution : float, 1/cm
        Width that a line of no width gets.
    low, high : float, 1/cm
        Between which the line is sought; `low` is the resolution by default.
    """

    name = "e2g"

    def __init__(
        self, resolution: float = 20.0, low: float | None = None, high: float = HIGHEST_E2G
    ):
        self._resolution = resolution
        self._range = (resolution if low is None else low, high)
        self._frames = 0
        self._square = 0.0

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {
            "resolution_per_cm": self._resolution,
            "low_per_cm": self._range[0],
            "high_per_cm": self._range[1],
        }

    def start(self, trajectory: Trajectory) -> None:
        """Refuse a trajectory without velocities, or with frames too far apart.

        Raises
        ------
        MissingVelocitiesError, TimestepError, AnalysisError
        """
        trajectory.require_velocities("the E2g phonon")
        self._timestep = trajectory.require_timestep("the E2g phonon")
        if not trajectory.first.pbc.all():
            raise AnalysisError(
                f"{trajectory.name} is not periodic in all directions: the E2g phonon is one of a "
                "crystal."
            )
        masses = trajectory.first.get_masses()[trajectory.molecules]
        highest = HIGHEST_E2G * np.sqrt(_H2 / masses.sum(axis=1).min())
        require_sampling(self._timestep, highest, "the E2g phonon")
        self._share = masses / masses.sum(axis=1, keepdims=True)
        self._weights = np.sqrt(masses.sum(axis=1) / masses.sum())
        self._spectrum = PowerSpectrum(self._timestep, self._resolution)

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        if not self._frames:
            layers = alternate_layers(snapshot.centres_of_mass, snapshot.cell)
            self._basal, self._weights = layers.basal, self._weights * layers.signs
        velocities = snapshot.velocities[snapshot.molecules]
        centres = np.einsum("mk,mkc->mc", self._share, velocities)
        signals = self._basal @ (self._weights @ centres)
        self._spectrum.add(signals)
        self._frames += 1
        self._square += float(np.mean(signals**2))

    def result(self) -> Result:
        """Quantities: peak and width, 1/cm; table ``e2g``: the spectrum, normalised."""
        spectrum = self._spectrum
        spectrum.require_segment(self._frames, "The E2g phonon")
        line = spectrum.line(*self._range)
        square = self._square / self._frames
        return Result(
            self.name,
            "E2g phonon, by projection",
            (
                Quantity("E2g peak", line.position, line.position_error, "1/cm"),
                Quantity("E2g width", line.width, line.width_error, "1/cm"),
                Quantity("resolution", self._resolution, float("nan"), "1/cm"),
            ),
            (
                Table(
                    self.name,
                    (
                        Column("wavenumber_per_cm", spectrum.wavenumbers, "wavenumber (1/cm)"),
                        Column(
                            "projected_cm",
                            spectrum.power / square,
                            "layers against each other (cm)",
                            spectrum.error / square,
                        ),
                    ),
                ),
            ),
            error_note(spectrum, self._timestep),
            draw=figures.spectrum,
        )
