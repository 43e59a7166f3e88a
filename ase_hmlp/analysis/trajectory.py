"""Frames of a trajectory one by one, their molecules found once and followed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from ase import Atoms, units

from ase_hmlp.analysis.source import Source
from ase_hmlp.errors import (
    BrokenBondError,
    FrameMismatchError,
    HMLPError,
    MissingResultsError,
    MissingVelocitiesError,
    NonFinitePositionsError,
    TimestepError,
    TooFewFramesError,
    TrajectoryError,
    UnsupportedElementError,
)
from ase_hmlp.molecules import (
    BROKEN_BOND,
    LONGEST_BOND,
    bond_shifts,
    check_molecules,
    find_molecules,
    stated_molecules,
)
from ase_hmlp.neighbors import complete_cell

#: An atom that moves by more than this share of a cell vector between two frames may have gone the
#: other way round.
SPARSE = 0.4

#: Two times between frames that differ by less than this share are the same.
SAME_TIME = 1e-3


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One frame: n atoms, m molecules.

    Attributes
    ----------
    index : int
        Of the frame in the trajectory, before any was left out.
    atoms : ase.Atoms
        The frame as it was read.
    cell : (3, 3) Å
        Completed where it is not periodic, see `ase_hmlp.neighbors.complete_cell`.
    molecules : (m, 2) atom indices
        The same in every frame; empty where the trajectory is not molecular.
    bonds : (m, 3) Å
        From the first atom of each molecule to the second, the shortest image.
    unwrapped : (n, 3) Å
        Positions continued from frame to frame without jumps across the cell, as long as no atom
        moves by half a cell between two frames that are used; see `Trajectory.require_paths`.
    where : str
        How to call the frame in messages.
    time : float or None
        The frame's own, fs: what it says, or what has passed since the first of the source; None
        where the time between frames is unknown.
    before : bool
        It comes before the first frame that is used, see `Trajectory.require_beginning`.
    """

    index: int
    atoms: Atoms
    cell: np.ndarray
    molecules: np.ndarray
    bonds: np.ndarray
    unwrapped: np.ndarray
    where: str
    time: float | None = None
    before: bool = False

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def positions(self) -> np.ndarray:
        """Positions as read (n, 3), Å."""
        return self.atoms.positions

    @property
    def pbc(self) -> np.ndarray:
        """Periodicity (3,)."""
        return self.atoms.pbc

    @cached_property
    def masses(self) -> np.ndarray:
        """Masses (n,), u."""
        return self.atoms.get_masses()

    @cached_property
    def volume(self) -> float:
        """Volume of the cell, Å³; only where all three directions are periodic."""
        if not self.pbc.all():
            raise TrajectoryError(
                f"{self.where} is not periodic in all directions: it has no volume."
            )
        return float(abs(np.linalg.det(self.cell)))

    @cached_property
    def bond_lengths(self) -> np.ndarray:
        """Bond lengths (m,), Å."""
        return np.linalg.norm(self.bonds, axis=1)

    @cached_property
    def axes(self) -> np.ndarray:
        """Unit vectors along the bonds (m, 3)."""
        return self.bonds / self.bond_lengths[:, None]

    @cached_property
    def centres(self) -> np.ndarray:
        """Bond midpoints (m, 3), Å, continued from frame to frame as `unwrapped`."""
        return self.unwrapped[self.molecules[:, 0]] + 0.5 * self.bonds

    @cached_property
    def centres_of_mass(self) -> np.ndarray:
        """Centres of mass of the molecules (m, 3), Å; other than `centres` in HD only."""
        m = self.masses[self.molecules]
        share = (m[:, 1] / m.sum(axis=1))[:, None]
        return self.unwrapped[self.molecules[:, 0]] + share * self.bonds

    @cached_property
    def velocities(self) -> np.ndarray:
        """Velocities (n, 3), Å/fs.

        Raises
        ------
        MissingVelocitiesError
        """
        if not self.atoms.has("momenta"):
            raise MissingVelocitiesError(
                f"{self.where} has no velocities: write them with the trajectory "
                "(ASE keeps them as momenta)."
            )
        velocities = self.atoms.get_velocities() * units.fs
        if not np.isfinite(velocities).all():
            raise MissingVelocitiesError(f"{self.where} has velocities that are not finite.")
        return velocities

    @cached_property
    def bond_velocities(self) -> np.ndarray:
        """Velocity of the second atom of each molecule relative to the first (m, 3), Å/fs."""
        first, second = self.molecules.T
        return self.velocities[second] - self.velocities[first]

    def has(self, name: str) -> bool:
        """Whether a calculator left this result with the frame."""
        return name in getattr(self.atoms.calc, "results", {})

    def stored(self, name: str) -> Any:
        """A result a calculator left with the frame, in ASE's units.

        Parameters
        ----------
        name : str
            As ``"energy"`` or ``"stress"``.

        Raises
        ------
        MissingResultsError
        """
        if not self.has(name):
            raise MissingResultsError(f"{self.where} was stored without its {name}.")
        return self.atoms.calc.results[name]


class Trajectory:
    """Frames of a trajectory, read one at a time.

    The molecules are found in the first frame that is used and kept in all others; every frame is
    checked to be of the same system and to hold all its bonds. A frame with the positions, momenta
    and time of the one before is left out: runs of ASE that are continued in a file begin with what
    they ended with.

    Parameters
    ----------
    source : path, ase.Atoms, or iterable of ase.Atoms
        Any file that ASE reads, or the folder of a run. A path or a list may be streamed as often
        as wanted, an iterator once.
    timestep : float, optional
        Time between successive frames of the source, fs (not of the integrator, unless every step
        was written). Taken from the trajectory if not given, see `timestep`.
    start, stop, step : int
        Frames used, as in a slice; not negative. `stop` None reads to the end.
    molecules : (m, 2) integers, optional
        Which atoms are bonded. If not given, by the first of these that there is: the column
        ``partner`` of the first frame; its column ``mol``, that of a LAMMPS dump, too, if every
        number in it is that of two atoms; the header that `hmlp run` writes; else found from
        distances in the first frame. The record says which.
    molecular : bool
        False for atoms that need not form molecules: ``Snapshot.molecules`` is empty.
    longest : float, optional
        Longest bond, Å: a longer one is broken. By default `ase_hmlp.molecules.LONGEST_BOND` where
        bonds are found from distances, and ``BROKEN_BOND`` where they are stated.
    type_masses : sequence of float, u
        Of a LAMMPS dump that does not name elements: masses of its atom types, all hydrogen.
    continuous : bool
        True if positions never jump across the cell, as ASE's integrators write them: they are then
        taken as they are.

    Raises
    ------
    TrajectoryError
        And those derived from it: for a source that cannot be read or is empty.
    ase_hmlp.errors.BondingError
        If the first frame is not molecular.
    """

    def __init__(
        self,
        source,
        timestep: float | None = None,
        start: int = 0,
        stop: int | None = None,
        step: int = 1,
        molecules=None,
        molecular: bool = True,
        longest: float | None = None,
        continuous: bool = False,
        type_masses: Sequence[float] = (),
    ):
        if start < 0 or step < 1 or (stop is not None and stop <= start):
            raise TrajectoryError(
                f"Frames {start}:{'' if stop is None else stop}:{step} are none: start must not be "
                "negative, stop beyond start, and step at least 1."
            )
        if timestep is not None and not 0.0 < timestep < np.inf:
            raise TimestepError(f"The time between frames must be positive, not {timestep} fs.")
        self._source = Source(source, type_masses)
        self.start, self.stop, self.step = start, stop, step
        self.longest = LONGEST_BOND if longest is None else longest
        self.continuous = continuous
        self._given_timestep = timestep
        self._hash = hashlib.sha256()
        self._used = self.doubled = 0
        # Two frames: the second for the time between them.
        self._head = list(islice(self._source.read(start, stop, step), 2))
        if not self._head:
            raise TooFewFramesError(
                f"{self.name} has no frame {start}: it is shorter."
                if start
                else f"{self.name} holds no frame."
            )
        first = self._head[0]
        self.first = first
        self._head_times = [_time(atoms) for atoms in self._head]
        self._timed = self._followed = self._from_beginning = False
        self._check_positions(first, self._where(start))
        cell = complete_cell(first.cell.array, first.pbc)
        if timestep is not None:
            _ = self.timestep  # a contradiction is an error whoever needs the time
        self.bonds_from = "none"
        if not molecular:
            self.molecules = np.zeros((0, 2), dtype=np.intc)
        else:
            self.molecules = self._molecules(first, cell, molecules, longest)

    def _molecules(self, first: Atoms, cell, given, longest: float | None) -> np.ndarray:
        if (first.numbers != 1).any():
            i = int((first.numbers != 1).argmax())
            raise UnsupportedElementError(
                f"{self._where(self.start)}: atom {i} is {first.symbols[i]}, but only molecular "
                "hydrogen has the molecules looked for."
            )
        try:
            stated = (given, "given") if given is not None else stated_molecules(first.arrays)
            stated = stated or self._source.molecules
            if stated is not None:
                pairs, self.bonds_from = stated
                self.longest = BROKEN_BOND if longest is None else longest
                return check_molecules(pairs, len(first))
            self.bonds_from = "distances"
            return find_molecules(first.positions, cell, first.pbc, self.longest)
        except HMLPError as error:
            raise type(error)(f"{self._where(self.start)}: {error}") from error

    # ------------------------------------------------------------ what is known before reading on

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self._source.name

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.first)

    @property
    def has_velocities(self) -> bool:
        """Whether the first frame has velocities."""
        return self.first.has("momenta")

    def require_velocities(self, purpose: str) -> None:
        """Refuse a trajectory without velocities before it is read.

        Parameters
        ----------
        purpose : str
            What needs them.

        Raises
        ------
        MissingVelocitiesError
        """
        if not self.has_velocities or not self.first.get_momenta().any():
            lack = "only zeros for" if self.has_velocities else "no"
            raise MissingVelocitiesError(
                f"{self._where(self.start)} has {lack} velocities, which {purpose} needs: write "
                "them with the trajectory (ASE keeps them as momenta)."
            )

    def require_timestep(self, purpose: str) -> float:
        """Time between frames used, fs; while streaming, frames must then be evenly spaced.

        Parameters
        ----------
        purpose : str
            What needs it.

        Raises
        ------
        TimestepError
        """
        try:
            timestep = self.timestep
        except TimestepError as error:
            raise TimestepError(f"{error} It is needed by {purpose}.") from error
        self._timed = True
        return timestep

    def require_paths(self, purpose: str) -> None:
        """Refuse, while streaming, frames too sparse to tell which way round atoms went.

        Parameters
        ----------
        purpose : str
            What needs their paths.
        """
        self._followed = True
        self._path_purpose = purpose

    def require_beginning(self, purpose: str) -> None:
        """Stream the frames before the first that is used, too: ``before`` is true of them.

        Parameters
        ----------
        purpose : str
            What has to follow the molecules from the beginning.

        Raises
        ------
        TrajectoryError
            If they are gone.
        """
        if self.start and self._source.once:
            raise TrajectoryError(
                f"{self.name} is an iterator, whose frames before {self.start} are gone, and "
                f"{purpose} needs them: give a list."
            )
        self._from_beginning = True

    @cached_property
    def timestep(self) -> float:
        """Time between frames used, fs: `step` times that between frames of the source.

        Known from the caller; or from ``info["time_fs"]`` or ``info["time_ps"]`` of the frames; or
        from the header of an ASE trajectory written by one of ASE's integrators (timestep and
        interval).

        Raises
        ------
        TimestepError
            If it is unknown, or if the caller contradicts the trajectory.
        """
        times = [time for time in self._head_times if time is not None]
        recorded = self._source.spacing
        if len(times) == 2:
            recorded = (times[1] - times[0]) / self.step
        given = self._given_timestep
        if recorded is not None and recorded <= 0.0:
            raise TimestepError(
                f"{self.name}: the second frame used is {-recorded * self.step:g} fs before the "
                "first."
            )
        if given is not None and recorded is not None and not _same(given, recorded):
            raise TimestepError(
                f"{self.name} says that its frames are {recorded:g} fs apart, not {given:g} fs."
            )
        spacing = given if given is not None else recorded
        if spacing is None:
            raise TimestepError(
                f"The time between the frames of {self.name} is unknown: give it, in fs."
            )
        return float(spacing) * self.step

    @property
    def bond_timestep(self) -> float | None:
        """Time step of the Verlet kind that bonds moved by, fs; None where it is unknown."""
        return self._source.bond_timestep

    def _known_timestep(self) -> float | None:
        try:
            return self.timestep
        except TimestepError:
            return None

    def describe(self) -> dict:
        """What was read, for the record: source, hash, frames, time between them.

        The hash is the file's SHA-256 where the source is a file, else that of the atomic numbers,
        positions, cells and momenta of the frames that were streamed last.
        """
        sha256 = self._source.sha256
        return {
            "source": self.name,
            "sha256": self._hash.hexdigest() if sha256 is None else sha256,
            "hash_of": "frames" if sha256 is None else "file",
            "start": self.start,
            "stop": self.stop,
            "step": self.step,
            "frames": self._used,
            "frames_left_out": self.doubled,
            "timestep_fs": self._known_timestep(),
            "atoms": self.n_atoms,
            "molecules": len(self.molecules),
            "bonds_from": self.bonds_from,
        }

    # ------------------------------------------------------------ streaming

    def __iter__(self) -> Iterator[Snapshot]:
        """Stream the frames.

        Raises
        ------
        FrameMismatchError, BrokenBondError, TimestepError, NonFinitePositionsError,
        TrajectoryError
        """
        first = self.first
        fractional: np.ndarray | None = None
        shifts: np.ndarray | None = None
        start_time: float | None = None
        self._hash, self._used, self.doubled = hashlib.sha256(), 0, 0
        last: Atoms | None = None
        for index, atoms in self._frames():
            where, before_start = self._where(index), index < self.start
            if last is not None and _doubles(atoms, last):
                self.doubled += 1
                continue
            last = atoms
            if index != self.start:
                self._check_same(first, atoms, where)
                self._check_positions(atoms, where)
            cell = complete_cell(atoms.cell.array, atoms.pbc)
            before, fractional = fractional, np.linalg.solve(cell.T, atoms.positions.T).T
            if before is None or shifts is None:
                shifts = np.zeros_like(fractional)
            elif not self.continuous:
                steps = (fractional - before) * atoms.pbc
                jumps = np.round(steps)
                if self._followed:
                    self._check_paths(steps - jumps, where)
                shifts -= jumps
            used, time = self._used, _time(atoms)
            if index == self.start:
                start_time = time
            elif self._timed and time is not None and start_time is not None:
                self._check_time(time - start_time, used, where)
            self._update_hash(atoms)
            self._used += not before_start
            yield Snapshot(
                index,
                atoms,
                cell,
                self.molecules,
                self._bonds(atoms, cell, where),
                atoms.positions + shifts @ cell,
                where,
                self._elapsed(index - self.doubled * self.step) if time is None else time,
                before_start,
            )

    def _frames(self) -> Iterator[tuple[int, Atoms]]:
        """Frames to stream and their indices."""
        if self._from_beginning and self.start:
            for k, atoms in enumerate(self._source.read(0, self.start, self.step)):
                yield k * self.step, atoms
        frames = self._source.again(self._head, self.start, self.stop, self.step)
        for k, atoms in enumerate(frames):
            yield self.start + k * self.step, atoms

    def _elapsed(self, index: int) -> float | None:
        spacing = self._known_timestep()
        return None if spacing is None else index * spacing / self.step

    def _bonds(self, atoms: Atoms, cell, where: str) -> np.ndarray:
        if not len(self.molecules):
            return np.zeros((0, 3))
        first, second = self.molecules.T
        images = bond_shifts(atoms.positions, cell, atoms.pbc, self.molecules, self.longest)
        bonds = atoms.positions[second] + images @ cell - atoms.positions[first]
        lengths = np.linalg.norm(bonds, axis=1)
        if lengths.max() > self.longest:
            k = int(lengths.argmax())
            raise BrokenBondError(
                f"{where}: the bond between atoms {first[k]} and {second[k]} is {lengths[k]:.3f} Å "
                f"long, more than {self.longest:g} Å: it broke."
            )
        return bonds

    def _where(self, index: int) -> str:
        return f"Frame {index} of {self.name}"

    @staticmethod
    def _check_positions(atoms: Atoms, where: str) -> None:
        if len(atoms) == 0:
            raise FrameMismatchError(f"{where} has no atoms.")
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            raise NonFinitePositionsError(f"{where} has positions or a cell that are not finite.")

    @staticmethod
    def _check_same(first: Atoms, atoms: Atoms, where: str) -> None:
        if len(atoms) != len(first):
            raise FrameMismatchError(
                f"{where} has {len(atoms)} atoms, the first frame {len(first)}."
            )
        if not np.array_equal(atoms.numbers, first.numbers):
            i = int((atoms.numbers != first.numbers).argmax())
            raise FrameMismatchError(
                f"{where}: atom {i} is {atoms.symbols[i]}, but {first.symbols[i]} in the first "
                "frame."
            )
        if not np.array_equal(atoms.pbc, first.pbc):
            raise FrameMismatchError(
                f"{where} is periodic along {atoms.pbc.tolist()}, the first frame along "
                f"{first.pbc.tolist()}."
            )

    def _check_time(self, elapsed: float, used: int, where: str) -> None:
        expected = used * self.timestep
        if abs(elapsed - expected) > SAME_TIME * max(expected, self.timestep):
            raise TimestepError(
                f"{where} is at {elapsed:g} fs after the first, not {expected:g}: frames must be "
                "evenly spaced in time."
            )

    def _check_paths(self, steps, where: str) -> None:
        if abs(steps).max() > SPARSE:
            i = int(abs(steps).max(axis=1).argmax())
            raise TrajectoryError(
                f"{where}: atom {i} moved by about half a cell since the frame before, one way or "
                f"the other, and {self._path_purpose} needs its path: use more frames, or say that "
                "positions are continuous."
            )

    def _update_hash(self, atoms: Atoms) -> None:
        if self._source.path is not None:
            return
        for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            self._hash.update(np.ascontiguousarray(array).tobytes())
        if atoms.has("momenta"):
            self._hash.update(atoms.get_momenta().tobytes())


def _time(atoms: Atoms) -> float | None:
    """Time of a frame by its own record, fs."""
    for key, scale in (("time_fs", 1.0), ("time_ps", 1000.0)):
        if key in atoms.info:
            return scale * float(atoms.info[key])
    return None


def _doubles(atoms: Atoms, last: Atoms) -> bool:
    """Whether a frame that moves is the one before again, as ASE appends to a trajectory."""
    if not atoms.has("momenta") or not last.has("momenta") or _time(atoms) != _time(last):
        return False
    momenta = atoms.get_momenta()
    return (
        np.array_equal(atoms.positions, last.positions)
        and np.array_equal(momenta, last.get_momenta())
        and bool(momenta.any())
    )


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME_TIME * max(abs(a), abs(b))
