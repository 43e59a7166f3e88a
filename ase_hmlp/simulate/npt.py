"""Molecular dynamics at constant pressure: heat a crystal, then hold it.

The integrator is ASE's `ase.md.nose_hoover_chain.MTKNPT` (Martyna, Tobias and Klein 1994, all nine
components of the cell). Its target temperature is fixed when it is made, so heating goes in short
stages, each with a new integrator at a higher temperature that takes over positions, momenta and
cell; thermostat and barostat start each stage at rest. What the integrator conserves is conserved
within a stage. `Sample.conserved` is the sum of its changes inside stages, so that it is one
continuous curve which an exact integrator would keep at zero.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import Trajectory
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import Stationary
from threadpoolctl import threadpool_limits

from ase_hmlp.molecules import bond_shifts

#: Share of the hold that is left out of averages, while the crystal settles.
SETTLING = 0.25


@dataclass(frozen=True)
class NPTSettings:
    """What to run.

    Attributes
    ----------
    pressure : float, GPa
    temperature : float, K
        Reached at the end of the heating, then held.
    start_temperature : float, K
        Of the initial velocities, once half their energy has gone into the potential.
    timestep : float, fs
    heating_steps, holding_steps : int
    stages : int
        Steps in temperature from `start_temperature` to `temperature`.
    thermostat_time, barostat_time : float, fs
        Characteristic times.
    sample_interval, frame_interval : int, steps
        Between rows of the log, and between frames of the trajectory.
    seed : int
        Of the initial velocities.
    """

    pressure: float = 100.0
    temperature: float = 150.0
    start_temperature: float = 30.0
    timestep: float = 0.5
    heating_steps: int = 2400
    holding_steps: int = 3600
    stages: int = 6
    thermostat_time: float = 50.0
    barostat_time: float = 1000.0
    sample_interval: int = 10
    frame_interval: int = 50
    seed: int = 2020

    def __post_init__(self):
        for name in ("temperature", "start_temperature", "timestep", "stages", "sample_interval"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.heating_steps < self.stages or self.holding_steps < 0:
            raise ValueError(
                f"{self.heating_steps} heating steps in {self.stages} stages and "
                f"{self.holding_steps} holding steps do not make a run"
            )
        if self.frame_interval % self.sample_interval:
            raise ValueError("frame_interval must be a multiple of sample_interval")

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.heating_steps + self.holding_steps

    def schedule(self) -> list[tuple[float, int, bool]]:
        """Stages: target temperature (K), steps, and whether it is the hold."""
        targets = np.linspace(self.start_temperature, self.temperature, self.stages)
        bounds = np.linspace(0, self.heating_steps, self.stages + 1).round().astype(int)
        heating = zip(targets, np.diff(bounds), strict=True)
        hold = [(self.temperature, self.holding_steps, True)] if self.holding_steps else []
        return [(float(t), int(n), False) for t, n in heating] + hold


@dataclass(frozen=True)
class Sample:
    """One row of the log; the names carry the units.

    Attributes
    ----------
    holding : int
        1 while the target temperature is held, 0 while it is raised.
    pressure_GPa : float
        The kinetic part included.
    enthalpy_eV_per_atom : float
        ``(E_potential + E_kinetic + P V) / n`` at the target pressure P.
    conserved_meV_per_atom : float
        Change since the start of what the integrator conserves; see the module.
    bond_length_A, bond_spread_A : float
        Mean over molecules, and standard deviation.
    alignment : float
        ``<(3 cos^2 a - 1) / 2>`` over molecules, a the angle between an axis and the same axis at
        the start: 1 for a molecule that points where it did, 0 for one that forgot.
    bond_eV_per_atom, pair_eV_per_atom, orientation_eV_per_atom : float
        Potential energy by level of the hierarchy.
    """

    step: int
    time_ps: float
    holding: int
    target_K: float
    temperature_K: float
    pressure_GPa: float
    volume_A3_per_atom: float
    a_A: float
    b_A: float
    c_A: float
    alpha_deg: float
    beta_deg: float
    gamma_deg: float
    potential_eV_per_atom: float
    kinetic_eV_per_atom: float
    enthalpy_eV_per_atom: float
    conserved_meV_per_atom: float
    bond_length_A: float
    bond_spread_A: float
    alignment: float
    bond_eV_per_atom: float
    pair_eV_per_atom: float
    orientation_eV_per_atom: float


class NPTRun:
    """Heat a crystal and hold it, at constant pressure.

    Parameters
    ----------
    atoms : ase.Atoms with an HMLP calculator
        Moves with the dynamics; its momenta are replaced.
    settings : NPTSettings
    trajectory, log : path
        ASE trajectory and CSV file to write, row by row: what an interrupted run leaves is whole.

    Attributes
    ----------
    samples : list of Sample
    molecules : (m, 2) array
        Indices of the two atoms of each molecule.
    """

    def __init__(
        self, atoms: Atoms, settings: NPTSettings, trajectory: str | Path, log: str | Path
    ):
        self.atoms = atoms
        self.settings = settings
        self.trajectory = Path(trajectory)
        self.log = Path(log)
        self.samples: list[Sample] = []
        atoms.get_potential_energy()
        self.molecules = atoms.calc.molecules
        self._axes0 = self._bonds()[1]

    def run(self, progress: Callable[[Sample], None] | None = None) -> list[Sample]:
        """Run to the end.

        Parameters
        ----------
        progress : callable, optional
            Called with every sample.

        Returns
        -------
        list of Sample
        """
        settings = self.settings
        rng = np.random.default_rng(settings.seed)
        # The crystal is at a minimum: half of the kinetic energy is about to become potential.
        spread = np.sqrt(2.0 * units.kB * settings.start_temperature * self.atoms.get_masses())
        self.atoms.set_momenta(spread[:, None] * rng.normal(size=(len(self.atoms), 3)))
        Stationary(self.atoms)
        with (
            threadpool_limits(1, user_api="blas"),
            Trajectory(self.trajectory, "w") as frames,
            self.log.open("w", newline="") as stream,
        ):
            writer = csv.DictWriter(stream, [f.name for f in fields(Sample)])
            writer.writeheader()

            def record(sample):
                self.samples.append(sample)
                writer.writerow({k: f"{v:.10g}" for k, v in asdict(sample).items()})
                stream.flush()
                if sample.step % settings.frame_interval == 0:
                    frames.write(self.atoms)
                if progress is not None:
                    progress(sample)

            step, conserved = 0, 0.0
            for target, length, holding in settings.schedule():
                dynamics = self._integrator(target)
                before = dynamics.get_conserved_energy()
                if step == 0:
                    record(self._sample(0, target, holding, 0.0))
                for count in _chunks(step, length, settings.sample_interval):
                    dynamics.run(count)
                    step += count
                    change = conserved + dynamics.get_conserved_energy() - before
                    if step % settings.sample_interval == 0:
                        record(self._sample(step, target, holding, change))
                conserved = change
        return self.samples

    def _integrator(self, target: float) -> MTKNPT:
        settings = self.settings
        return MTKNPT(
            self.atoms,
            timestep=settings.timestep * units.fs,
            temperature_K=target,
            pressure_au=settings.pressure * units.GPa,
            tdamp=settings.thermostat_time * units.fs,
            pdamp=settings.barostat_time * units.fs,
        )

    def _bonds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lengths (m), Å, and unit vectors (m, 3) of the bonds."""
        positions, cell = self.atoms.positions, self.atoms.cell.array
        shifts = bond_shifts(positions, cell, self.atoms.pbc, self.molecules)
        first, second = self.molecules.T
        vectors = positions[second] + shifts @ cell - positions[first]
        lengths = np.linalg.norm(vectors, axis=1)
        return lengths, vectors / lengths[:, None]

    def _sample(self, step: int, target: float, holding: bool, conserved: float) -> Sample:
        atoms, n, settings = self.atoms, len(self.atoms), self.settings
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
        volume = atoms.get_volume()
        lengths, axes = self._bonds()
        cosines = np.einsum("mc,mc->m", axes, self._axes0)
        levels = atoms.calc.levels
        a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
        return Sample(
            step,
            step * settings.timestep / 1000.0,
            int(holding),
            target,
            atoms.get_temperature(),
            -np.trace(stress) / 3.0 / units.GPa,
            volume / n,
            a,
            b,
            c,
            alpha,
            beta,
            gamma,
            potential / n,
            kinetic / n,
            (potential + kinetic + settings.pressure * units.GPa * volume) / n,
            1000.0 * conserved / n,
            lengths.mean(),
            lengths.std(),
            1.5 * np.mean(cosines**2) - 0.5,
            levels["bond"] / n,
            levels["pair"] / n,
            levels["orientation"] / n,
        )


def _chunks(start: int, length: int, interval: int):
    """Split `length` steps so that every multiple of `interval` is the end of a chunk."""
    step, end = start, start + length
    while step < end:
        count = min(interval - step % interval, end - step)
        yield count
        step += count


def read_log(path: str | Path) -> np.ndarray:
    """Read the log of a run.

    Parameters
    ----------
    path : path of a CSV file written by `NPTRun`

    Returns
    -------
    structured array
        One field for each of `Sample`'s.
    """
    return np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True))


def settled(log: np.ndarray) -> np.ndarray:
    """Rows of a log that averages are over: the hold without its first quarter.

    Parameters
    ----------
    log : structured array from `read_log`

    Returns
    -------
    structured array
        Empty if the run ended before the hold.
    """
    hold = log[log["holding"] == 1]
    return hold[int(SETTLING * len(hold)) :]
