"""`Dynamics` whose steps LAMMPS takes.

From checkpoint to checkpoint, and from stage to stage, is one process of LAMMPS: it reads the
restart file of the one before, writes snapshots and energies as it goes, and a restart file. A run
that was killed goes the same way as one that was not, so both are the same to the last bit on the
same number of MPI processes.

What comes back is in the units, the order of atoms and the orientation of the structure that the
run began with; positions are not wrapped. LAMMPS wants cells triangular: the structure is turned to
that at the start, and what LAMMPS gives is turned back. A cell that moves stays triangular there,
where ASE's integrators move all nine numbers: the two differ by a rotation of everything, and by
the inertia of shears, see `ase_hmlp.simulate.lammps_script`.

Where LAMMPS gives up on a structure, what is left is the last snapshot before that.

Kinetic energy, temperature and pressure are computed from LAMMPS's velocities as ASE does it.
LAMMPS's constants in its units metal differ from ASE's by parts in 10⁷, Boltzmann's by 1.5 in 10⁶.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from math import gcd
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import ConfigError, DomainWarning, RunError, StructureError
from ase_hmlp.files import sync_folder
from ase_hmlp.lammps.dump import read_snapshot
from ase_hmlp.lammps.export import ANGSTROM_PER_PS, write_data, write_model
from ase_hmlp.lammps.program import INPUT, LOG, LammpsProcess, remove_leftovers
from ase_hmlp.model_io import Model
from ase_hmlp.molecules import bond_shifts
from ase_hmlp.simulate.dynamics import Dynamics, Stage, drifts
from ase_hmlp.simulate.integrators import Times
from ase_hmlp.simulate.lammps_script import (
    COLUMNS,
    RESTART,
    THERMO,
    Segment,
    script,
    stress_of,
)

#: Last bytes of a restart file that is whole.
RESTART_END = b"LammpS RestartT\0"

#: Names in the workshop's folder.
MODEL, DATA = "model.hmlp", "start.data"

_ROW = len(THERMO.split())


class LammpsWorkshop:
    """The folder of LAMMPS's files of a run, and its process while there is one.

    Parameters
    ----------
    folder : Path
        Made by `open`.
    command : sequence of str
        From `ase_hmlp.lammps.program.find_command`.
    model : Model
    seed : int
        Of the random thermostats.
    intervals : sequence of int
        Steps between the times something is due; the first is that between checkpoints.
    properties : sequence of str
        Results that frames shall have.

    Attributes
    ----------
    version : str
        Of LAMMPS, once it has said it.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        model: Model,
        seed: int,
        intervals: Sequence[int],
        properties: Sequence[str],
    ):
        self.folder = folder
        self.seed = seed
        self.checkpoint_interval = intervals[0]
        self.every = gcd(*intervals)
        self.properties = [name for name in COLUMNS if name in properties]
        self.version = ""
        self._command = list(command)
        self._model = model
        self._process: LammpsProcess | None = None

    def open(self) -> None:
        """Make the folder, if it is not there, and write the model."""
        self.folder.mkdir(exist_ok=True)
        remove_leftovers(self.folder)
        write_model(self._model, self.folder / MODEL)

    def start(self, segment: Segment) -> LammpsProcess:
        """Start LAMMPS on a segment."""
        self.close()
        self._process = LammpsProcess(self._command, script(segment), self.folder)
        return self._process

    def keep(self, restart: str) -> None:
        """Remove all restart files but one."""
        for path in self.folder.glob("*.restart"):
            if path.name != restart:
                path.unlink()

    def collect(self, process: LammpsProcess, restart: str) -> None:
        """Take over what a process left, its restart file under a name, and end it.

        Raises
        ------
        RunError
            If the restart file is not whole.
        """
        self.version = process.version
        written = process.folder / RESTART
        with written.open("rb+") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - len(RESTART_END)))
            if stream.read() != RESTART_END:
                raise RunError("LAMMPS left half a restart file: is the disk full?")
            os.fsync(stream.fileno())
        os.replace(written, self.folder / restart)
        self.collect_log(process)
        sync_folder(self.folder)
        self.close()

    def collect_log(self, process: LammpsProcess) -> Path:
        """Keep input and log of a process; returns the path of the log."""
        for name in (INPUT, LOG):
            if (process.folder / name).exists():
                shutil.copyfile(process.folder / name, self.folder / name)
        return self.folder / LOG

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
            self._process = None


class LammpsResults(SinglePointCalculator):
    """What LAMMPS computed of a structure, and what only the calculator does.

    Parameters
    ----------
    atoms : ase.Atoms
    results : dict
    calculator : HMLP
        For deviations, and the energies of the levels that come with them.
    levels : dict of str to NaN
        Until then.
    """

    def __init__(self, atoms: Atoms, results: dict, calculator: HMLP, levels: dict[str, float]):
        super().__init__(atoms, **results)
        self.levels = levels
        self._calculator = calculator

    def uncertainties(self, atoms: Atoms) -> np.ndarray:
        """Predicted standard deviation of each atom's energy (n), eV."""
        values = self._calculator.uncertainties(atoms)
        self.levels = self._calculator.levels
        return values


class LammpsDynamics(Dynamics):
    """Atoms that LAMMPS moves through stages; see the module.

    Made by `continued`, from a state of its own or of `Dynamics` before its first step.
    """

    _workshop: LammpsWorkshop
    _molecules: np.ndarray
    _calculator: HMLP
    _restart: str
    _levels: list[str]
    _offsets: np.ndarray
    _rotation: np.ndarray
    _segment: Segment | None = None
    _process: LammpsProcess | None = None
    _rows: Iterator[np.ndarray] | None = None
    #: The conserved energy of LAMMPS, and ours, where the segment started.
    _reference = _base = float("nan")

    @classmethod
    def continued(
        cls,
        state: dict[str, np.ndarray],
        stages: Sequence[Stage],
        times: Times,
        calculator: HMLP,
        workshop: LammpsWorkshop,
        molecules: np.ndarray,
    ) -> LammpsDynamics:
        """Continue from a state.

        Parameters
        ----------
        state : what `state` gave
        stages, times : the same as before
        calculator : HMLP
        workshop : LammpsWorkshop
        molecules : (m, 2) array
            Indices of the two atoms of each molecule.

        Raises
        ------
        ConfigError
            If the structure is not periodic.
        RunError
            If the restart file is gone.
        """
        dynamics = cls.restored(state, stages, times, calculator)
        dynamics._set_up(state, calculator, workshop, molecules)
        return dynamics

    def _set_up(self, state, calculator, workshop, molecules) -> None:
        if not self.atoms.pbc.all():
            raise ConfigError(
                "Engine lammps runs structures that are periodic in three directions; engine ase "
                "runs others."
            )
        self._workshop, self._molecules, self._calculator = workshop, molecules, calculator
        self._restart = str(state.get("restart", ""))
        if self._restart and not (workshop.folder / self._restart).exists():
            raise RunError(
                f"{workshop.folder / self._restart} is gone: the run cannot be continued, remove "
                "its folder."
            )
        workshop.keep(self._restart)
        self._levels = state["levels"].tolist() if "levels" in state else []
        self._offsets = state.get("offsets", np.zeros((0, 3)))
        self._rotation = state.get("rotation", np.eye(3))

    def conserved(self) -> float:
        """Change since the start of what the integrators conserve (eV).

        NaN where there is nothing: in ramps, unlike ASE's integrators, and in Langevin dynamics.
        """
        if self._segment is not None and not self._segment.conserves:
            return float("nan")
        return self._change

    def state(self) -> dict[str, np.ndarray]:
        """Everything that is needed to continue, as plain arrays, and the name of a file."""
        if self._rows is not None:
            raise RuntimeError("LAMMPS is at work: there is a state at checkpoints only.")
        if not self._levels and self.atoms.calc.results:  # the calculator's, before the first step
            self._levels = list(self.atoms.calc.levels)
        return super().state() | {
            "restart": np.array(self._restart),
            "levels": np.array(self._levels, dtype=str),
            "offsets": self._offsets,
            "rotation": self._rotation,
        }

    def advance(self, stop: int) -> None:
        """Let LAMMPS run until `stop` steps are done.

        Raises
        ------
        StructureError
            If LAMMPS gave up on the structure.
        RunError
            If it did not get that far.
        """
        while self.step < stop:
            if self._rows is None:
                self._begin()
            self._follow(stop)

    # ------------------------------------------------------------ a segment

    def _begin(self) -> None:
        stage, first = self._coming()
        workshop, every = self._workshop, self._workshop.checkpoint_interval
        if not self._restart:
            self._write_data()
        self._segment = Segment(
            stage=stage,
            first=first,
            last=first + stage.steps,
            start=self.step,
            end=min(first + stage.steps, (self.step // every + 1) * every),
            times=self.times,
            every=workshop.every,
            properties=workshop.properties,
            model=f"../{MODEL}",
            source=f"../{self._restart or DATA}",
            seed=workshop.seed,
            drifted=self.step == first and self._drifted(stage),
        )
        self._process = workshop.start(self._segment)
        self._reference = float("nan")
        self._rows = self._read(self._process)

    def _drifted(self, stage: Stage) -> bool:
        """Whether the stage before this one, unlike it, gave the centre of mass a momentum."""
        before = self.stages[self.stage_number - 1].method if self.step else None
        return drifts(before) and not drifts(stage.method)

    def _write_data(self) -> None:
        atoms = self.atoms
        data = write_data(atoms, self._workshop.folder / DATA, self._molecules)
        self._rotation = data.rotation
        # Molecules are whole in LAMMPS: their second atoms may be an image of what they are here.
        self._offsets = np.zeros((len(atoms), 3))
        self._offsets[self._molecules[:, 1]] = bond_shifts(
            atoms.positions, atoms.cell.array, atoms.pbc, self._molecules
        )

    def _read(self, process: LammpsProcess) -> Iterator[np.ndarray]:
        """Rows of `THERMO` whose snapshots are written; warnings are passed on."""
        row = None
        for line in process.lines():
            # LAMMPS prints a row, writes the snapshot, goes on, and prints something else.
            if row is not None:
                yield row
                row = None
            words = line.split()
            if len(words) == _ROW and words[0].isdigit():
                row = np.array([float(word) for word in words])
            elif line.startswith("WARNING: ") and "training data of pair style hmlp" in line:
                text = re.sub(r" \(\S+:\d+\)$", "", line.removeprefix("WARNING: ").strip())
                message = f"{text}. This is an extrapolation."
                if text.startswith("The volume"):
                    kind = "volume"
                else:
                    kind = "contact" if "different molecules" in text else "bond_length"
                    message = f"{message[:-1]} (LAMMPS counts atoms from 1)."
                warnings.warn(DomainWarning(message, kind), stacklevel=2)

    def _follow(self, stop: int) -> None:
        """Go on to `stop`, or to the end of the segment if that comes first."""
        segment, process = self._segment, self._process
        assert segment is not None and process is not None and self._rows is not None
        for row in self._rows:
            step = int(row[0])
            snapshot = process.folder / f"frame.{step}.bin"
            if step == segment.start:
                self._base, self._reference = self._change, float(row[2] - row[3])
                snapshot.unlink(missing_ok=True)
                continue
            self.step = step
            if segment.conserves:
                self._change = self._base + float(row[2] - row[3]) - self._reference
            if step in (stop, segment.end):
                self._take(row, snapshot)
            snapshot.unlink(missing_ok=True)
            if step == segment.end:
                self._end()
                return
            if step == stop:
                return
        self._stop(process)

    def _take(self, row: np.ndarray, snapshot: Path) -> None:
        """Make a snapshot the present structure, with its results."""
        step, columns = read_snapshot(snapshot)
        assert step == self.step
        lx, ly, lz, xy, xz, yz, *low = row[10:]
        cell = np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]]) @ self._rotation.T
        atoms, back = self.atoms, self._rotation.T
        atoms.calc = None
        atoms.set_cell(cell)
        atoms.positions = (columns[:, :3] - low) @ back - self._offsets @ cell
        atoms.set_velocities(columns[:, 3:6] @ back * ANGSTROM_PER_PS)
        results = {"energy": float(row[1]), "stress": stress_of(row[4:10], self._rotation)}
        at = 6
        for name in self._workshop.properties:
            values = columns[:, at : at + len(COLUMNS[name])]
            at += len(COLUMNS[name])
            if name == "forces":
                values = values @ back
            elif name == "energies":
                values = values[:, 0]
            else:
                # A virial with the sign of a stress, where the pressure's is a pressure's.
                values = -stress_of(values, self._rotation) / atoms.get_volume()
            results[name] = values
        atoms.calc = LammpsResults(
            atoms, results, self._calculator, dict.fromkeys(self._levels, float("nan"))
        )

    def _end(self) -> None:
        """The last row has come: wait for the restart file."""
        process = self._process
        assert process is not None
        if process.wait() or not (process.folder / RESTART).exists():
            self._stop(process)
        restart = f"{self.step}.restart"
        self._workshop.collect(process, restart)
        self._restart = restart
        self._rows = None

    def _stop(self, process: LammpsProcess) -> None:
        """LAMMPS has ended before it should have."""
        status, problem = process.wait(), process.problem()
        log = self._workshop.collect_log(process)
        started = not np.isnan(self._reference)
        self._workshop.close()
        self._rows = None
        if problem and started:
            raise StructureError(f"LAMMPS: {problem}")
        if problem:
            raise RunError(f"LAMMPS did not start: {problem}")
        raise RunError(
            f"LAMMPS ended after step {self.step} with status {status} and no word why; its log is "
            f"{log}. The same command goes on from the last checkpoint."
        )
