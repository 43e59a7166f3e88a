"""State variables of one run and what their fluctuations say: heat capacity, compressibility."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from ase import units
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import stacked
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.series import Series
from ase_hmlp.analysis.statistics import (
    FEWEST,
    BlockedMean,
    Estimate,
    estimate,
    statistical_inefficiency,
)
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.errors import AnalysisError, MissingResultsError

#: g/cm³ of one atomic mass unit in one Å³.
DENSITY = units._amu * 1e3 / 1e-24

#: J/mol of one eV per particle.
MOLAR = units.mol / units.J

#: A volume or energy that fluctuates by less than this share is held constant.
CONSTANT = 1e-9

#: In the canonical ensemble the total energy fluctuates more than the kinetic; where its variance
#: is below this share of the kinetic, total energy is conserved.
MICROCANONICAL = 0.2

ENSEMBLES = ("auto", "nve", "nvt", "npt")

#: In pictures, of what is measured in a frame.
LABELS = (
    "temperature (K)",
    "pressure (GPa)",
    "volume (Å³/atom)",
    "potential energy (eV/atom)",
    "kinetic energy (eV/atom)",
)


@dataclass(frozen=True, eq=False)
class StateSamples:
    """State variables along a run at one temperature and pressure, s samples of n atoms.

    Attributes
    ----------
    name : str
        What it is called in messages and tables.
    n_atoms : int
    mass : float
        Mean mass of an atom, u.
    temperature : (s,) K
    pressure : (s,) GPa
        The kinetic part included; NaN where it was not recorded.
    volume : (s,) Å³ per atom
        NaN where there is none.
    potential, kinetic : (s,) eV per atom
    targets : (float, float)
        Of thermostat (K) and barostat (GPa); NaN where there is none, or it is unknown.
    phase : str
        What it was started as; empty where that is unknown.
    mass_assumed : bool
        Whether the mass is a guess.
    """

    name: str
    n_atoms: int
    mass: float
    temperature: np.ndarray
    pressure: np.ndarray
    volume: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    targets: tuple[float, ...] = (float("nan"), float("nan"))
    phase: str = ""
    mass_assumed: bool = False

    def __len__(self) -> int:
        return len(self.temperature)

    def enthalpy(self, pressure: float | None = None) -> np.ndarray:
        """``E + P V`` (s,), eV per atom.

        Parameters
        ----------
        pressure : float, GPa, optional
            Of the barostat. Without it the mean is that at the mean pressure, which is known no
            better than the samples tell: they scatter with the pressure as well.
        """
        if pressure is not None:
            return self.energy + pressure * units.GPa * self.volume
        mean = self.pressure.mean()
        # Where the volume varies, P(t) V(t) would have the covariance of both in its mean.
        work = mean * self.volume + self.volume.mean() * (self.pressure - mean)
        return self.energy + units.GPa * work

    @property
    def energy(self) -> np.ndarray:
        """Potential and kinetic energy (s,), eV per atom."""
        return self.potential + self.kinetic

    @property
    def density(self) -> np.ndarray:
        """Density (s,), g/cm³."""
        return DENSITY * self.mass / self.volume

    @property
    def nominal(self) -> tuple[float, float]:
        """Temperature (K) and pressure (GPa) that were asked for, or else their means."""
        t, p = self.targets
        return (
            t if np.isfinite(t) else float(self.temperature.mean()),
            p if np.isfinite(p) else float(self.pressure.mean()),
        )

    @property
    def ensemble(self) -> str:
        """Which ensemble the fluctuations are those of: ``npt``, ``nvt`` or ``nve``."""
        if self.volume.std() > CONSTANT * abs(self.volume.mean()):
            return "npt"
        return "nve" if self.energy.var() < MICROCANONICAL * self.kinetic.var() else "nvt"


@dataclass(frozen=True)
class Fluctuations:
    """Derivatives of the state variables by fluctuation formulas.

    Attributes
    ----------
    ensemble : str
        ``npt``, ``nvt`` or ``nve``.
    heat_capacity : Estimate
        At constant pressure in ``npt``, else at constant volume; k_B per atom.
    expansion : Estimate or None
        ``(dV/dT)_P / V``, 1/K; ``npt`` only.
    compressibility : Estimate or None
        ``-(dV/dP)_T / V``, 1/GPa; ``npt`` only.
    """

    ensemble: str
    heat_capacity: Estimate
    expansion: Estimate | None = None
    compressibility: Estimate | None = None


def fluctuations(samples: StateSamples, pressure: float, ensemble: str = "auto") -> Fluctuations:
    """Heat capacity, thermal expansion and compressibility from fluctuations.

    Allen and Tildesley, Computer Simulation of Liquids (2017), section 2.5: in the ensemble of
    constant pressure ``C_P = <dH^2> / (k T^2)``, ``alpha = <dV dH> / (k T^2 V)``, ``kappa =
    <dV^2> / (k T V)``; of constant volume ``C_V = <dE^2> / (k T^2)``; of constant energy (Lebowitz,
    Percus and Verlet, Phys. Rev. 153, 250, 1967) ``<dK^2> = 3/2 N (k T)^2 (1 - 3 N k / (2 C_V))``.
    Variances are corrected for the correlation of the samples; errors are a jackknife over blocks.
    All are NaN with fewer than `ase_hmlp.analysis.statistics.FEWEST` independent samples, as in a
    run that drifts.

    Parameters
    ----------
    samples : StateSamples
    pressure : float, GPa
        Of the barostat.
    ensemble : {"auto", "nve", "nvt", "npt"}
        By default what fluctuates decides.

    Raises
    ------
    AnalysisError
        If the ensemble contradicts the volume, or the temperature is zero.
    """
    if ensemble not in ENSEMBLES:
        raise AnalysisError(f"An ensemble is one of {', '.join(ENSEMBLES)}, not {ensemble!r}.")
    found = samples.ensemble
    if ensemble == "auto":
        ensemble = found
    elif (ensemble == "npt") != (found == "npt"):
        does = "varies" if found == "npt" else "is constant"
        raise AnalysisError(f"{samples.name}: the volume {does}, which is not {ensemble}.")
    if not samples.temperature.mean() > 0.0:
        raise AnalysisError(f"{samples.name}: the temperature is zero: nothing fluctuates.")
    n, kb = samples.n_atoms, units.kB

    def constant_pressure(covariance, mean, temperature):
        per_kt2 = n / (kb * temperature**2)
        return (
            per_kt2 * covariance[0, 0] / kb,
            per_kt2 * covariance[0, 1] / mean[1],
            n * covariance[1, 1] / (kb * temperature * mean[1]) * units.GPa,
        )

    def constant_volume(covariance, _, temperature):
        return (n * covariance[0, 0] / (kb * temperature) ** 2,)

    def constant_energy(covariance, _, temperature):
        return (1.5 / (1.0 - 2.0 * n * covariance[0, 0] / (3.0 * (kb * temperature) ** 2)),)

    variables, derive = {
        "npt": ([samples.enthalpy(pressure), samples.volume], constant_pressure),
        "nvt": ([samples.energy], constant_volume),
        "nve": ([samples.kinetic], constant_energy),
    }[ensemble]
    return Fluctuations(ensemble, *_of_covariances(samples, variables, derive))


def _of_covariances(samples: StateSamples, variables, derive) -> list[Estimate]:
    """Functions of the covariances and means of variables and of the mean temperature."""
    series = np.array(variables)
    # Against cancellation: moments of deviations.
    origin = series.mean(axis=1)
    deviations = series - origin[:, None]
    inefficiency = statistical_inefficiency(deviations[0])
    n, k = len(samples), len(series)
    # A drift, or too short a run, has a variance that says nothing about fluctuations.
    unbiased = n / (n - inefficiency) if n >= FEWEST * inefficiency else float("nan")

    def function(moments):
        first, second = moments[:k], moments[k:-1].reshape(k, k)
        covariance = unbiased * (second - np.outer(first, first))
        return np.array(derive(covariance, origin + first, moments[-1]))

    moments = BlockedMean()
    for deviation, temperature in zip(deviations.T, samples.temperature, strict=True):
        moments.add([*deviation, *np.outer(deviation, deviation).ravel(), temperature])
    values, errors = moments.jackknife(function)
    return [
        Estimate(float(value), float(error), inefficiency, n)
        for value, error in zip(values, errors, strict=True)
    ]


def quantities(
    samples: StateSamples, pressure: float | None, ensemble: str, molecular: bool = True
) -> list[Quantity]:
    """Means and fluctuations of a run.

    Parameters
    ----------
    samples : StateSamples
    pressure : float or None, GPa
        Of the barostat; the mean pressure of the run if None.
    ensemble : str
        See `fluctuations`.
    molecular : bool
        Whether a mole is one of molecules of two atoms, or else one of atoms.

    Raises
    ------
    AnalysisError, MissingResultsError
    """
    out = [_mean("temperature", samples.temperature, "K")]
    if np.isfinite(samples.pressure).all():
        out.append(_mean("pressure", samples.pressure, "GPa"))
    periodic = np.isfinite(samples.volume).all()
    if periodic:
        out.append(_mean("volume", samples.volume, "Å³/atom"))
        out.append(_mean("density", samples.density, "g/cm³"))
    out.append(_mean("energy", samples.energy, "eV/atom"))
    if periodic and (pressure is not None or np.isfinite(samples.pressure).all()):
        out.append(_mean("enthalpy", samples.enthalpy(pressure), "eV/atom"))
    if pressure is None:
        pressure = float(samples.pressure.mean())
    if ensemble == "npt" or (ensemble == "auto" and samples.ensemble == "npt"):
        if not np.isfinite(pressure):
            raise MissingResultsError(
                f"{samples.name} has no pressures, and its volume varies: give the pressure of the "
                "barostat."
            )
    found = fluctuations(samples, pressure, ensemble)
    name = "C_P" if found.ensemble == "npt" else "C_V"
    capacity = found.heat_capacity
    atoms, mole = (2, "H2") if molecular else (1, "atoms")
    molar = atoms * units.kB * MOLAR
    out += [
        Quantity(f"{name}, fluctuations", capacity.value, capacity.error, "k_B/atom"),
        Quantity(
            f"{name}, molar", molar * capacity.value, molar * capacity.error, f"J/(K mol {mole})"
        ),
    ]
    for name, derivative, unit in (
        ("thermal expansion, fluctuations", found.expansion, "1/K"),
        ("compressibility, fluctuations", found.compressibility, "1/GPa"),
    ):
        if derivative is not None:
            out.append(Quantity(name, derivative.value, derivative.error, unit))
    return out


def _mean(name: str, values, unit: str) -> Quantity:
    mean = estimate(values)
    return Quantity(name, mean.value, mean.error, unit)


class Thermodynamics(Analysis):
    """Density, energy, enthalpy, heat capacity of a run, from what its frames were stored with.

    Needs velocities and energies; for the pressure, stresses.

    Parameters
    ----------
    pressure : float, GPa, optional
        Of the barostat; the mean pressure if not given.
    ensemble : {"auto", "nve", "nvt", "npt"}
        Whose fluctuations they are; by default what varies decides.
    """

    name = "thermo"
    least_frames = 2
    molecular = False

    def __init__(self, pressure: float | None = None, ensemble: str = "auto"):
        if ensemble not in ENSEMBLES:
            raise AnalysisError(f"An ensemble is one of {', '.join(ENSEMBLES)}, not {ensemble!r}.")
        self.pressure, self.ensemble = pressure, ensemble
        self._series = Series(
            "temperature_K",
            "pressure_GPa",
            "volume_A3_per_atom",
            "potential_eV_per_atom",
            "kinetic_eV_per_atom",
        )

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {"pressure_GPa": self.pressure, "ensemble": self.ensemble}

    def start(self, trajectory: Trajectory) -> None:
        """Refuse a trajectory without velocities."""
        trajectory.require_velocities("the kinetic energy")
        self._name, self._n = trajectory.name, trajectory.n_atoms
        self._mass = float(trajectory.first.get_masses().mean())
        # Of any isotope.
        self._hydrogen = bool((trajectory.first.numbers == 1).all())

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        atoms, n = snapshot.atoms, len(snapshot)
        kinetic = atoms.get_kinetic_energy()
        pressure = volume = float("nan")
        if snapshot.pbc.all():
            volume = snapshot.volume
            if snapshot.has("stress"):
                stress = np.asarray(snapshot.stored("stress"), dtype=float)
                diagonal = np.diag(stress) if stress.shape == (3, 3) else stress[:3]
                # The stored stress has no kinetic part.
                pressure = (-diagonal.mean() + 2.0 * kinetic / (3.0 * volume)) / units.GPa
        self._series.add(
            snapshot,
            2.0 * kinetic / (3.0 * n * units.kB),
            pressure,
            volume / n,
            snapshot.stored("energy") / n,
            kinetic / n,
        )

    @property
    def samples(self) -> StateSamples:
        """State variables of the frames so far.

        Raises
        ------
        MissingResultsError
        """
        if not self._series["potential_eV_per_atom"].any():
            raise MissingResultsError(
                f"{self._name} was stored without energies: they are all exactly zero (as in "
                "LAMMPS dumps read by ASE)."
            )
        t, p, volume, potential, kinetic = (self._series[name] for name in self._series.names)
        return StateSamples(self._name, self._n, self._mass, t, p, volume, potential, kinetic)

    def result(self) -> Result:
        """Means, fluctuations; table ``thermo``, against time.

        The table has what `ase_hmlp.analysis.run_logs` reads: density and number of atoms as well.
        """
        samples = self.samples
        drawn = self._series.table(self.name, LABELS)
        others = (
            Column("density_g_per_cm3", samples.density, "density (g/cm³)"),
            Column("atoms", np.full(len(samples), samples.n_atoms), "atoms"),
        )
        return Result(
            self.name,
            "Thermodynamics",
            tuple(quantities(samples, self.pressure, self.ensemble, self._hydrogen)),
            (Table(self.name, (*drawn.columns, *others)),),
            draw=_draw,
        )


def _draw(result: Result) -> Figure:
    """What a frame was measured by; density and number of atoms say nothing new in a picture."""
    (table,) = result.tables
    return stacked(replace(result, tables=(Table(table.name, table.columns[:-2]),)))
