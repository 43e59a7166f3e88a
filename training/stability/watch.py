"""Looking at a run in every step: how far bonds and contacts go, and what leaves the domain.

Two files in the folder of the run, beside those of `ase_hmlp.simulate.run_folder`:

===============  ==================================================================================
extremes.csv     a row every `sample_interval` of the log, and for every step with something outside
                 the domain: the extremes of all steps since the row before, and which molecules
                 had a bond outside it
caught.extxyz    structures outside the domain, or with an atom whose predicted deviation is above
                 the model's threshold: of every stretch of time the first, and those that are worse
                 than the ones before
===============  ==================================================================================

Both only grow. A run that was killed does the steps since its last checkpoint again, to the bit;
what the files say of those steps is cut off first.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_hmlp.calculator import HMLP
from ase_hmlp.files import write_whole
from ase_hmlp.model_io import Domain
from ase_hmlp.molecules import partners
from ase_hmlp.simulate.dynamics import Dynamics
from ase_hmlp.simulate.observables import log_line
from ase_hmlp.simulate.run import Run
from ase_hmlp.training.append_only import split_frames, split_lines
from ase_hmlp.training.label import extxyz_text

EXTREMES, CAUGHT = "extremes.csv", "caught.extxyz"

COLUMNS = ("step", "time_ps", "bond_min_A", "bond_max_A", "contact_A", "outside")

#: By how much (Å, and share of the deviation) a structure must be worse than the worst one kept of
#: the same stretch of time.
WORSE_LENGTH, WORSE_DEVIATION = 0.01, 0.05

#: Of what structures are compared by: a process that goes on reads them from the file.
DIGITS = 6


@dataclass(frozen=True)
class Watching:
    """Attaches a `Watch` to runs; can be sent to other processes.

    Attributes
    ----------
    apart : float, ps
        Length of the stretches of time of which the worst structures are kept.
    """

    apart: float

    def __call__(self, run: Run) -> None:
        """Attach one."""
        write, timestep = run.config.write, run.config.dynamics.timestep
        watch = Watch(
            run.folder,
            timestep,
            write.sample_interval,
            write.deviation_interval,
            write.checkpoint_interval,
            max(1, round(1000.0 * self.apart / timestep)),
        )
        run.attach(watch, 1)


@dataclass
class _Worst:
    """The worst structure kept of the present stretch of time."""

    stretch: int = -1
    value: float = 0.0

    def beaten(self, stretch: int, value: float, by: float) -> bool:
        """Whether a structure is worse, or the first of its stretch; it is remembered then."""
        if stretch == self.stretch and value <= self.value + by:
            return False
        self.stretch, self.value = stretch, value
        return True


@dataclass
class Watch:
    """Observer of a run, called after every step.

    Attributes
    ----------
    folder : Path
        Of the run.
    timestep : float, fs
    interval : int, steps
        Between rows.
    deviations : int, steps
        Between looks at the predicted deviations; 0 for none.
    checkpoint : int, steps
        Between checkpoints of the run.
    stretch : int, steps
    """

    folder: Path
    timestep: float
    interval: int
    deviations: int
    checkpoint: int
    stretch: int
    _begun: bool = False
    _bonds: tuple[float, float] = (np.inf, -np.inf)
    _contact: float = np.inf
    _length: _Worst = field(default_factory=_Worst)
    _deviation: _Worst = field(default_factory=_Worst)

    def __call__(self, dynamics: Dynamics) -> None:
        """Look at the structure of a step."""
        step, atoms = dynamics.step, dynamics.atoms
        calculator = atoms.calc
        if not self._begun:
            self._begin(step)
        lengths, contact = calculator.bond_lengths, calculator.shortest_contact
        low, high = float(lengths.min()), float(lengths.max())
        self._bonds = min(self._bonds[0], low), max(self._bonds[1], high)
        self._contact = min(self._contact, contact)
        trips = left(calculator.domain, low, high, contact)
        if trips or step % self.interval == 0 or step == dynamics.steps:
            self._row(step, outside(calculator.domain, lengths))
        looked = self.deviations and step % self.deviations == 0
        if trips or (looked and calculator.model.has_deviations):
            self._look(step, atoms, trips, _excess(calculator.domain, low, high, contact))
        if step % self.checkpoint == 0 or step == dynamics.steps:
            self._sync()

    def _row(self, step: int, molecules: np.ndarray) -> None:
        time = step * self.timestep / 1000.0
        words = [step, time, *self._bonds, self._contact, " ".join(map(str, molecules))]
        with (self.folder / EXTREMES).open("a", encoding="utf-8") as stream:
            stream.write(log_line(words))
        self._bonds, self._contact = (np.inf, -np.inf), np.inf

    def _look(self, step: int, atoms: Atoms, trips: list[str], excess: float) -> None:
        """Keep the structure if it is worse than what was kept of this stretch of time."""
        calculator: HMLP = atoms.calc
        stretch = step // self.stretch
        if trips:
            if not self._length.beaten(stretch, excess, WORSE_LENGTH):
                return
            deviation = _deviation(calculator)
        else:
            deviation, limit = _deviation(calculator), threshold(calculator)
            by = WORSE_DEVIATION * self._deviation.value
            if limit is None or deviation <= limit:
                return
            if not self._deviation.beaten(stretch, deviation, by):
                return
            trips = ["uncertainty"]
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frame.set_array("partner", partners(calculator.molecules))
        frame.info = {
            "step": step,
            "trips": "+".join(trips),
            "excess_A": max(excess, 0.0),
            "deviation_meV": deviation,
        }
        with (self.folder / CAUGHT).open("a", encoding="utf-8") as stream:
            stream.write(extxyz_text(frame))

    # ------------------------------------------------------------ going on after a kill

    def _begin(self, step: int) -> None:
        """Cut the files to what was before this step, and remember what was worst there."""
        self._begun = True
        path = self.folder / EXTREMES
        if step == 0 or not path.exists():
            write_whole(path, log_line(COLUMNS))
        else:
            lines = split_lines(path.read_bytes())
            good = [line for line in lines[1:] if int(line.split(b",")[0]) < step]
            write_whole(path, b"".join([*lines[:1], *good]))
        path = self.folder / CAUGHT
        frames = []
        if step and path.exists():
            frames = [f for f in split_frames(path.read_bytes()) if _step_of(f) < step]
        write_whole(path, b"".join(frames))
        for frame in frames:
            stretch, uncertain = _step_of(frame) // self.stretch, b"trips=uncertainty" in frame
            kept = self._deviation if uncertain else self._length
            value = _number(frame, b"deviation_meV" if uncertain else b"excess_A")
            kept.stretch, kept.value = stretch, value

    def _sync(self) -> None:
        """Bring both to the disk, before the checkpoint that relies on them."""
        for name in (EXTREMES, CAUGHT):
            with (self.folder / name).open("rb") as stream:
                os.fsync(stream.fileno())


def left(domain: Domain, low: float, high: float, contact: float) -> list[str]:
    """What of a structure is outside what was labelled: "bond", "contact", both or nothing.

    Parameters
    ----------
    domain : Domain
        Of the model.
    low, high : float, Å
        Shortest and longest bond.
    contact : float, Å
        Shortest distance between atoms of different molecules.
    """
    bond = bool(low < domain.bond_length[0] or high > domain.bond_length[1])
    return ["bond"] * bond + ["contact"] * bool(contact < domain.contact)


def outside(domain: Domain, lengths: np.ndarray) -> np.ndarray:
    """Numbers of the molecules whose bonds (Å) are outside the domain."""
    low, high = domain.bond_length
    return np.flatnonzero((lengths < low) | (lengths > high))


def threshold(calculator: HMLP) -> float | None:
    """Deviation of an atom (meV) above which the calculator warns, if there is one."""
    limit = calculator.model.uncertainty_threshold
    return None if limit is None else 1000.0 * limit


def read_extremes(path: Path) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Read ``extremes.csv``; a half-written last line is left out.

    Returns
    -------
    rows : structured array
        All columns but the last.
    outside : list of tuples
        Numbers of the molecules outside the domain, for each row.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        _, *rows = csv.reader(line for line in stream if line.endswith("\n"))
    kind = [(name, float) for name in COLUMNS[:-1]]
    numbers = np.array([tuple(map(float, row[:-1])) for row in rows], dtype=kind)
    return numbers, [tuple(map(int, row[-1].split())) for row in rows]


def _deviation(calculator: HMLP) -> float:
    """Of the most uncertain atom, meV; zero without deviations."""
    if not calculator.model.has_deviations:
        return 0.0
    return round(float(1000.0 * calculator.uncertainties().max()), DIGITS)


def _excess(domain: Domain, low: float, high: float, contact: float) -> float:
    """How far (Å) the worst bond or contact is outside; negative inside."""
    shortest, longest = domain.bond_length
    return round(max(shortest - low, high - longest, domain.contact - contact), DIGITS)


def _step_of(frame: bytes) -> int:
    return int(_number(frame, b"step"))


def _number(frame: bytes, key: bytes) -> float:
    found = re.search(rb"\b" + key + rb"=(\S+)", frame.split(b"\n", 2)[1])
    if found is None:
        raise ValueError(f"a frame of {CAUGHT} has no {key.decode()}")
    return float(found[1])
