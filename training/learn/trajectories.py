"""Single runs of an exploration: a relaxation, or dynamics to a point of the grid and at it."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.cell import Cell
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from threadpoolctl import threadpool_limits

from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import (
    BondStretchError,
    ContactError,
    DomainWarning,
    HMLPError,
    NotConvergedError,
)
from ase_hmlp.model_io import Model
from ase_hmlp.molecules import find_molecules, partners
from ase_hmlp.simulate.build import thickness
from ase_hmlp.simulate.relax import relax
from ase_hmlp.training.frames import Frame
from ase_hmlp.training.learn.config import ExploreSection
from ase_hmlp.training.learn.environments import frame_of
from ase_hmlp.training.learn.starts import Start

#: Tolerances (eV/Å, GPa) of the relaxations, which are starting points and paths to them.
FMAX, STRESS = 0.02, 0.5

#: Characteristic times (fs) of thermostat and barostat, as in `ase_hmlp.simulate.npt`.
THERMOSTAT, BAROSTAT = 50.0, 1000.0

#: fs at one target on the way between two points of the grid.
STAGE = 50.0

#: Steps between looks at the cell, and between structures to go back to.
CHECK = 10

#: A cell may become thinner for its volume by this factor before its images are too near.
SQUASHED = 0.5

#: What the calculator says when a bond or a contact is not like any it was trained on.
_LEAVING = r"The bond between|Atoms \d+ and \d+.* of different molecules"


@dataclass(frozen=True)
class Trip:
    """Where a run left what the potential was trained for; dynamics ends there.

    Attributes
    ----------
    kind : {"bond", "contact", "cell", "start", "other"}
        A bond or a contact unlike any labelled; a cell squashed flat; no relaxed structure to
        start from; anything else that had no energy.
    sentence : str
    """

    kind: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a relaxation, or dynamics on the way to a point of the grid and at it, left behind.

    Snapshots s, atoms n.

    Attributes
    ----------
    start : str
    pressure : float, GPa
    temperature : float, K
        0 for a relaxation.
    molecules : (n / 2, 2) atom indices
    steps : (s,)
    positions, cells : (s, n, 3), (s, 3, 3), Å
    deviations : (s, n) eV, predicted standard deviation of each atom's energy
    momenta : (n, 3), of the last snapshot, or None where the run has no end to go on from
    trip : Trip or None
        Its last snapshot is then the structure that tripped, if it has an energy, or the last
        that was looked at before.
    """

    start: str
    pressure: float
    temperature: float
    molecules: np.ndarray
    steps: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    deviations: np.ndarray
    momenta: np.ndarray | None = None
    trip: Trip | None = None

    def __len__(self):
        return len(self.steps)

    @property
    def goes_on(self) -> bool:
        """Whether there is an end to go on from."""
        return self.momenta is not None

    @property
    def name(self) -> str:
        """Where it went."""
        where = f"{self.temperature:g}K" if self.temperature else "relaxed"
        return f"{self.start}/{self.pressure:g}GPa-{where}"

    def atoms(self, k: int) -> Atoms:
        """Snapshot k, with the bonded partner of each atom."""
        n = self.positions.shape[1]
        atoms = Atoms(f"H{n}", self.positions[k], cell=self.cells[k], pbc=True)
        atoms.set_array("partner", partners(self.molecules))
        return atoms

    def frame(self, k: int) -> Frame:
        """Snapshot k as what the levels see, without labels."""
        return frame_of(self.positions[k], self.cells[k], self.molecules)


@contextmanager
def _domain(action: Literal["ignore", "error"]):
    """Accept any volume, and ignore or refuse bonds and contacts unlike any labelled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        warnings.filterwarnings(action, _LEAVING, DomainWarning)
        yield


#: What ends a run: the above, what has no energy, and an integrator with a cell gone mad.
_ENDS = (HMLPError, DomainWarning, ArithmeticError, ValueError)


def _trip(error: Exception) -> Trip:
    sentence = " ".join(str(error).split())
    if isinstance(error, BondStretchError) or sentence.startswith("The bond"):
        return Trip("bond", sentence)
    if isinstance(error, ContactError | DomainWarning):
        return Trip("contact", sentence)
    if isinstance(error, _SquashedError):
        return Trip("cell", sentence)
    return Trip("other", sentence)


class _SquashedError(ValueError):
    """A cell so flat that molecules meet their images."""


def compactness(cell) -> float:
    """Least distance between lattice planes, for a cell of unit volume."""
    reduced = Cell(np.asarray(cell)).minkowski_reduce()[0]
    return float(thickness(reduced).min() / np.cbrt(abs(reduced.volume)))


def relaxation(
    model: Model,
    start: Start,
    pressure: float,
    volume: float,
    settings: ExploreSection,
    seed: int,
) -> Trajectory:
    """Relax a starting structure at a pressure, through whatever has an energy.

    It trips if it ends at a structure with a bond or a contact unlike any labelled. Hcp is scaled,
    and a liquid melted, to the one structure there then is.

    Parameters
    ----------
    model : Model
    start : Start
    pressure : float, GPa
    volume : float, Å³/atom
        For what is drawn.
    settings : ExploreSection
    seed : int
        Of what is drawn.
    """
    rng = np.random.default_rng(seed)
    atoms = start.draw(volume, model.potential.bond.r0, settings.atoms, rng)
    molecules = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    atoms.calc = HMLP(model, bonds=molecules, threads=1)
    path: list[Atoms] = []
    trip = None
    try:
        with _domain(action="ignore"):
            if start.made:
                hot = max(settings.temperatures)
                path.append(start.make(atoms, atoms.calc, pressure, hot, rng).copy())
            else:
                relax(
                    atoms,
                    pressure,
                    FMAX,
                    STRESS,
                    settings.relaxation_steps,
                    progress=lambda *_: path.append(atoms.calc.atoms.copy()),
                )
    except _ENDS as error:
        # A relaxation that has not converged is far enough to start from.
        if start.made or not isinstance(error, NotConvergedError):
            trip = _trip(error)
    # Where nothing had an energy the structure itself is all there is.
    path = path or [atoms]
    goes_on = trip is None
    if goes_on:
        try:
            with _domain(action="error"):
                HMLP(model, bonds=molecules, threads=1).calculate(path[-1])
        except DomainWarning as error:
            trip = _trip(error)
    chosen = np.unique(np.linspace(0, len(path) - 1, settings.snapshots).round().astype(int))
    return _trajectory(
        model,
        start.name,
        (pressure, 0.0),
        molecules,
        [(int(k), path[k]) for k in chosen],
        np.zeros((len(atoms), 3)) if goes_on else None,
        trip,
    )


def dynamics(
    model: Model,
    before: Trajectory,
    point: tuple[float, float],
    rigid: bool,
    compact: float,
    settings: ExploreSection,
    seed: int,
) -> Trajectory:
    """Take a structure to a point of the grid and hold it there.

    Parameters
    ----------
    model : Model
    before : Trajectory
        What to go on from. After a relaxation, new velocities are drawn.
    point : (pressure in GPa, temperature in K)
    rigid : bool
        Whether the cell keeps its shape.
    compact : float
        `compactness` of the cell at the beginning of the tour.
    settings : ExploreSection
    seed : int
        Of new velocities.
    """
    atoms = before.atoms(-1)
    del atoms.arrays["partner"]
    # The same lattice by shorter vectors: a cell may shear on and on.
    atoms.set_cell(atoms.cell.minkowski_reduce()[0])
    origin = (before.pressure, before.temperature)
    if before.temperature:
        atoms.set_momenta(before.momenta)
    else:
        origin = (before.pressure, point[1])
        thermalize_momenta(atoms, temperature_K=point[1], rng=np.random.default_rng(seed))
        Stationary(atoms)
    atoms.calc = HMLP(model, bonds=before.molecules, threads=1)
    total = sum(steps for *_, steps in _schedule(origin, point, settings))
    due = np.linspace(0, total, settings.snapshots + 1).round().astype(int)[1:].tolist()
    kept: list[tuple[int, Atoms]] = []
    step, trip, last = 0, None, atoms.copy()
    try:
        with _domain(action="error"), threadpool_limits(1, user_api="blas"):
            for pressure, temperature, length in _schedule(origin, point, settings):
                integrator = _integrator(atoms, pressure, temperature, rigid, settings)
                for done in range(0, length, CHECK):
                    count = min(CHECK, length - done)
                    integrator.run(count)
                    if compactness(atoms.cell) < SQUASHED * compact:
                        raise _SquashedError("The cell was squashed flat.")
                    step, last = step + count, atoms.copy()
                    while due and step >= due[0]:
                        kept.append((due.pop(0), last))
    except _ENDS as error:
        trip = _trip(error)
        # A warning leaves the structure it is about, which has an energy; others may not.
        kept.append((step, atoms.copy() if isinstance(error, DomainWarning) else last))
    momenta = None if trip else last.get_momenta()
    return _trajectory(model, before.start, point, before.molecules, kept, momenta, trip)


def stillborn(before: Trajectory, point: tuple[float, float]) -> Trajectory:
    """What there is of a run that has nothing to go on from."""
    trip = Trip("start", f"No structure relaxed at {before.pressure:g} GPa.")
    n = 2 * len(before.molecules)
    return Trajectory(
        before.start,
        *point,
        before.molecules,
        np.zeros(0, dtype=int),
        np.zeros((0, n, 3)),
        np.zeros((0, 3, 3)),
        np.zeros((0, n)),
        trip=trip,
    )


def _schedule(origin, point, settings: ExploreSection) -> list[tuple[float, float, int]]:
    """Pressure (GPa), temperature (K) and steps of each stage."""
    stages = max(1, round(1000.0 * settings.ramp / STAGE))
    lengths = np.diff(
        np.linspace(0, 1000.0 * settings.ramp / settings.timestep, stages + 1).round()
    )
    targets = np.linspace(origin, point, stages + 1)[1:]
    ramp = [(float(p), float(t), int(n)) for (p, t), n in zip(targets, lengths, strict=True)]
    return [*ramp, (*point, round(1000.0 * settings.hold / settings.timestep))]


def _integrator(atoms, pressure, temperature, rigid: bool, settings: ExploreSection):
    return (IsotropicMTKNPT if rigid else MTKNPT)(
        atoms,
        timestep=settings.timestep * units.fs,
        temperature_K=temperature,
        pressure_au=pressure * units.GPa,
        tdamp=THERMOSTAT * units.fs,
        pdamp=BAROSTAT * units.fs,
    )


def _trajectory(model, start, point, molecules, kept, momenta, trip) -> Trajectory:
    """Snapshots with their deviations; without those that have no energy."""
    calculator = HMLP(model, bonds=molecules, threads=1)
    n = 2 * len(molecules)
    steps, positions, cells, deviations = [], [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        for step, atoms in kept:
            try:
                deviation = calculator.uncertainties(atoms)
            except HMLPError:
                continue
            steps.append(step)
            positions.append(atoms.positions.copy())
            cells.append(atoms.cell.array.copy())
            deviations.append(deviation)
    return Trajectory(
        start,
        point[0],
        point[1],
        molecules,
        np.array(steps, dtype=int),
        np.array(positions).reshape(-1, n, 3),
        np.array(cells).reshape(-1, 3, 3),
        np.array(deviations).reshape(-1, n),
        momenta,
        trip,
    )
