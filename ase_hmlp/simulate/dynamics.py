"""Molecular dynamics through stages, with ramps, that can be stopped and continued to the bit.

`Dynamics` knows nothing of files. What it needs to go on is a dict of arrays, `Dynamics.state`;
`Dynamics.restored` continues from one, in this process or another. A run that takes its state and
restores it at the same steps, whether or not it was interrupted there, is the same to the last bit,
because both go the same way: a new calculator (lists of neighbours depend on when they were made,
and with them the order of sums) and a new integrator.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary

from ase_hmlp.simulate.integrators import (
    Method,
    Target,
    Times,
    conserved_energy,
    make,
    take,
)

#: Targets of a ramp change this often (steps), on a grid from the start of its stage.
RAMP_INTERVAL = 10

_Kind = TypeVar("_Kind", bound="Dynamics")

_ATOMS = ("numbers", "masses", "positions", "momenta", "cell", "pbc")


@dataclass(frozen=True)
class Stage:
    """A part of a run under one method.

    Attributes
    ----------
    method : Method
    steps : int
    start, end : Target
        Equal, or a linear ramp from one to the other.
    """

    method: Method
    steps: int
    start: Target
    end: Target

    def at(self, step: float) -> Target:
        """Target a number of steps into the stage."""
        share = min(max(step / self.steps, 0.0), 1.0)
        return Target(
            self.start.temperature + share * (self.end.temperature - self.start.temperature),
            self.start.pressure + share * (self.end.pressure - self.start.pressure),
        )


class Dynamics:
    """Atoms that move through stages.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator and momenta
    stages : sequence of Stage
    times : Times
    rng : numpy.random.Generator
        Of the stochastic thermostats.

    Attributes
    ----------
    step : int
        Steps done.
    """

    def __init__(
        self,
        atoms: Atoms,
        stages: Sequence[Stage],
        times: Times,
        rng: np.random.Generator,
    ):
        self.atoms = atoms
        self.stages = list(stages)
        self.times = times
        self.rng = rng
        self.step = 0
        # Change of the conserved energy in what integrators did that are gone (eV).
        self._change = 0.0
        self._integrator: MolecularDynamics | None = None
        self._made_for: tuple[Method, Target] | None = None
        self._energy = 0.0  # conserved, when the integrator was made
        self._begun = 0  # its steps, before the present `advance`
        self._carried: dict[str, np.ndarray] | None = None
        self._carried_by: Method | None = None

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def stage_number(self) -> int:
        """Number of the stage that led here, from 1."""
        end = 0
        for number, stage in enumerate(self.stages, 1):
            end += stage.steps
            if self.step <= end:
                return number
        return len(self.stages)

    @property
    def target(self) -> Target:
        """Target at this step."""
        number = self.stage_number
        return self.stages[number - 1].at(self.step - self._start_of(number))

    def conserved(self) -> float:
        """Change since the start of what the integrators conserve, between their targets (eV)."""
        if self._integrator is None:
            return self._change
        return self._change + conserved_energy(self._integrator) - self._energy

    @property
    def now(self) -> int:
        """The step in progress, as observers inside a step may want to know."""
        return self.step + (self._integrator.nsteps - self._begun if self._integrator else 0)

    def advance(self, stop: int) -> None:
        """Run until `stop` steps are done."""
        while self.step < stop:
            stage, start = self._coming()
            end, target = start + stage.steps, stage.start
            if not _same(stage.start, stage.end):
                cell = (self.step - start) // RAMP_INTERVAL * RAMP_INTERVAL
                target = stage.at(min(cell + 0.5 * RAMP_INTERVAL, stage.steps))
                end = min(end, start + cell + RAMP_INTERVAL)
            integrator = self._prepare(stage.method, target)
            count = min(end, stop) - self.step
            self._begun = integrator.nsteps
            integrator.run(count)
            self.step += count
            self._begun = integrator.nsteps

    def _coming(self) -> tuple[Stage, int]:
        """The stage that the next step belongs to, and the step it starts at."""
        number = self.stage_number
        if self.step == self._start_of(number) + self.stages[number - 1].steps:
            number += 1
        return self.stages[number - 1], self._start_of(number)

    def _start_of(self, number: int) -> int:
        return sum(stage.steps for stage in self.stages[: number - 1])

    def _prepare(self, method: Method, target: Target) -> MolecularDynamics:
        """The integrator for what comes next."""
        wanted = (method, target)
        if self._integrator is None or not _same(self._made_for, wanted):
            self._retire()
            carried = self._carried if self._carried_by == method else None
            if drifts(self._carried_by) and not drifts(method):
                # What follows would keep what Langevin dynamics gave the centre of mass.
                Stationary(self.atoms, preserve_temperature=False)
            self._integrator = make(self.atoms, method, self.times, target, self.rng, carried)
            self._made_for = wanted
            self._begun = 0
            self._energy = conserved_energy(self._integrator)
        return self._integrator

    def _retire(self) -> None:
        """Take the integrator apart."""
        if self._integrator is None or self._made_for is None:
            return
        change = self.conserved()
        if change == change:  # Langevin dynamics conserves nothing and changes nothing
            self._change = change
        method, target = self._made_for
        self._carried, self._carried_by = take(self._integrator, target), method
        self._integrator = None

    # ------------------------------------------------------------ continuing

    def state(self) -> dict[str, np.ndarray]:
        """Everything that is needed to continue, as plain arrays."""
        self._retire()
        atoms = self.atoms
        values = (
            atoms.numbers,
            atoms.get_masses(),
            atoms.positions,
            atoms.get_momenta(),
            atoms.cell.array,
            atoms.pbc,
        )
        state = {name: np.array(value) for name, value in zip(_ATOMS, values, strict=True)}
        state["step"] = np.array(self.step)
        state["change"] = np.array(self._change)
        state["random"] = np.array(json.dumps(self.rng.bit_generator.state))
        if self._carried is not None and self._carried_by is not None:
            state["carried_by"] = np.array(json.dumps(vars(self._carried_by)))
            state |= {f"carried.{name}": value for name, value in self._carried.items()}
        return state

    @classmethod
    def restored(
        cls: type[_Kind],
        state: dict[str, np.ndarray],
        stages: Sequence[Stage],
        times: Times,
        calculator,
        info: dict | None = None,
    ) -> _Kind:
        """Continue from a state.

        Parameters
        ----------
        state : what `state` gave
        stages, times : the same as before
        calculator : ASE calculator
            That has not calculated anything yet, or the run differs in its last bits from one
            that is continued in another process.
        info : dict, optional
            Of the atoms.
        """
        atoms = Atoms(
            state["numbers"],
            state["positions"],
            masses=state["masses"],
            momenta=state["momenta"],
            cell=state["cell"],
            pbc=state["pbc"],
            calculator=calculator,
            info=info,
        )
        saved = json.loads(str(state["random"]))
        rng = np.random.Generator(getattr(np.random, saved["bit_generator"])())
        rng.bit_generator.state = saved
        dynamics = cls(atoms, stages, times, rng)
        dynamics.step = int(state["step"])
        dynamics._change = float(state["change"])
        if "carried_by" in state:
            dynamics._carried_by = Method(**json.loads(str(state["carried_by"])))
            dynamics._carried = {
                name.removeprefix("carried."): value
                for name, value in state.items()
                if name.startswith("carried.")
            }
        return dynamics


def drifts(method: Method | None) -> bool:
    """Whether a method gives the centre of mass a momentum: Langevin dynamics does."""
    return method is not None and method.integrator is LangevinBAOAB


def _same(one, other) -> bool:
    """Whether methods and targets are equal, NaN being itself."""
    return repr(one) == repr(other)


def draw_momenta(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Give atoms Maxwell-Boltzmann momenta, the centre of mass at rest.

    Parameters
    ----------
    atoms : ase.Atoms
    temperature : float, K
        Of the distribution drawn from. A crystal at its minimum needs twice the temperature it
        shall have: half of the kinetic energy is about to become potential.
    rng : numpy.random.Generator
    """
    spread = np.sqrt(units.kB * temperature * atoms.get_masses())
    atoms.set_momenta(spread[:, None] * rng.normal(size=(len(atoms), 3)))
    Stationary(atoms)


def stops(start: int, end: int, intervals: Sequence[int]):
    """Steps after `start` at which something is due, up to and including `end`."""
    step = start
    while step < end:
        step = min(end, *((step // k + 1) * k for k in intervals))
        yield step
