"""Molecular dynamics at constant pressure in one go: heat a crystal, then hold it.

What `hmlp demo` runs, in memory and two files; `ase_hmlp.simulate.run` has all ensembles, and runs
that survive. The integrator is ASE's `ase.md.nose_hoover_chain.MTKNPT` (Martyna, Tobias and Klein
1994, all nine components of the cell), heating goes in steps of temperature; see
`ase_hmlp.simulate.dynamics`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import Trajectory
from threadpoolctl import threadpool_limits

from ase_hmlp.simulate.dynamics import Dynamics, Stage, draw_momenta, stops
from ase_hmlp.simulate.integrators import Method, Target, Times
from ase_hmlp.simulate.observables import Observables, bonds, log_line, read_log
from ase_hmlp.simulate.summary import SETTLING

__all__ = ["NPTRun", "NPTSettings", "Sample", "read_log", "settled"]


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
    environment_eV_per_atom : float
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
    environment_eV_per_atom: float


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
        self._observables = Observables(self.molecules, bonds(atoms, self.molecules)[1])

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
        draw_momenta(self.atoms, 2.0 * settings.start_temperature, rng)
        schedule = settings.schedule()
        stages = []
        for temperature, steps, _ in schedule:
            target = Target(temperature, settings.pressure)
            stages.append(Stage(Method("npt"), steps, target, target))
        times = Times(settings.timestep, settings.thermostat_time, settings.barostat_time)
        dynamics = Dynamics(self.atoms, stages, times, rng)
        with (
            threadpool_limits(1, user_api="blas"),
            Trajectory(self.trajectory, "w") as frames,
            self.log.open("w", newline="") as stream,
        ):
            stream.write(log_line(f.name for f in fields(Sample)))

            def record():
                row = self._observables.measure(dynamics)
                row["holding"] = schedule[dynamics.stage_number - 1][2]
                kinds = {"int": int, "float": float}
                sample = Sample(**{f.name: kinds[f.type](row[f.name]) for f in fields(Sample)})
                self.samples.append(sample)
                stream.write(log_line(asdict(sample).values()))
                stream.flush()
                if dynamics.step % settings.frame_interval == 0:
                    frames.write(self.atoms)
                if progress is not None:
                    progress(sample)

            record()
            for stop in stops(0, dynamics.steps, [settings.sample_interval]):
                dynamics.advance(stop)
                if stop % settings.sample_interval == 0:
                    record()
        return self.samples


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
