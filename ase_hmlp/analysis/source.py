"""Where the frames of a trajectory come from: any file ASE reads, a sequence, an iterator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms, units
from ase.io import Trajectory as ASETrajectory
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype
from ase.io.lammpsrun import iread_lammps_dump_text
from ase.io.vasp import read_vasp_xdatcar

from ase_hmlp.errors import TrajectoryError
from ase_hmlp.molecules import numbered_molecules

#: Integrators of ASE that move a harmonic oscillator as Verlet does, but for their thermostats.
VERLET = frozenset(
    (
        "Andersen",
        "Bussi",
        "Inhomogeneous_NPTBerendsen",
        "IsotropicMTKNPT",
        "Langevin",
        "LangevinBAOAB",
        "MTKNPT",
        "MaskedMTKNPT",
        "MelchionnaNPT",
        "NPT",
        "NPTBerendsen",
        "NVTBerendsen",
        "NoseHooverChainNVT",
        "SwitchLangevin",
        "VelocityVerlet",
    )
)


def file_sha256(path) -> str:
    """SHA-256 of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def trajectory_path(path: Path) -> Path:
    """The trajectory in the folder of a run; any other path as it is."""
    return path / "trajectory.traj" if path.is_dir() else path


class Source:
    """Where frames come from: a file, a sequence, or an iterator that runs once.

    Parameters
    ----------
    source : path, ase.Atoms, or iterable of ase.Atoms
    type_masses : sequence of float, u
        Of a LAMMPS dump that does not name elements: masses of its atom types, all hydrogen.

    Attributes
    ----------
    name : str
        What it is called in messages.
    path : path or None
        Of the file, where it is one; the trajectory in it, if the source is the folder of a run.
    """

    def __init__(self, source, type_masses: Sequence[float] = ()):
        self.path: Path | None = None
        self._frames: Iterable[Atoms] = ()
        self._once: Iterator[Atoms] | None = None
        self._type_masses = np.array(type_masses, dtype=float)
        if isinstance(source, (str, Path)):
            self.path = trajectory_path(Path(source))
            self.name = str(self.path)
            if not self.path.is_file():
                raise TrajectoryError(f"There is no trajectory {self.path}.")
        elif isinstance(source, Atoms):
            self._frames, self.name = [source], "the structure"
        elif isinstance(source, Iterator):
            self._once, self.name = source, "the trajectory"
        elif isinstance(source, Iterable):
            self._frames, self.name = source, "the trajectory"
        else:
            raise TrajectoryError(f"A trajectory is a path or frames, not {type(source).__name__}.")

    @property
    def once(self) -> bool:
        """Whether frames can be read once only."""
        return self._once is not None

    @cached_property
    def sha256(self) -> str | None:
        """Of the file; None where there is none."""
        if self.path is None:
            return None
        return file_sha256(self.path)

    @cached_property
    def _header(self) -> dict[str, Any]:
        """Description of an ASE trajectory of molecular dynamics; empty for other sources."""
        if self.path is None:
            return {}
        try:
            if self._format != "traj":
                return {}
            with ASETrajectory(self.path) as frames:
                header = frames.description or {}
        except OSError:  # reading the frames will say what is wrong
            return {}
        return header if header.get("type") == "molecular-dynamics" else {}

    @property
    def spacing(self) -> float | None:
        """Time between frames (fs) by the header of an ASE trajectory."""
        if "timestep" not in self._header or "interval" not in self._header:
            return None
        return float(self._header["timestep"]) * int(self._header["interval"]) / units.fs

    @property
    def bond_timestep(self) -> float | None:
        """Time step (fs) that bonds moved by, as Verlet does, by the header of an ASE trajectory.

        What `hmlp run` wrote, or the step of one of ASE's own integrators.
        """
        step = self._header.get("bond_timestep")
        if step is None and self._header.get("md-type") in VERLET:
            step = self._header.get("timestep")
        return None if step is None else float(step) / units.fs

    @property
    def molecules(self) -> tuple[np.ndarray, str] | None:
        """Pairs of bonded atoms (m, 2) that the file states apart from its frames, and where.

        In the header that `hmlp run` writes, or in the column ``mol`` of a LAMMPS dump, which ASE
        leaves out of the frames.
        """
        pairs = self._header.get("molecules")
        if pairs is not None:
            return np.array(pairs, dtype=int).reshape(-1, 2), "header"
        numbers = self._dump_numbers
        pairs = None if numbers is None else numbered_molecules(numbers)
        return None if pairs is None else (pairs, "mol")

    @cached_property
    def _dump_numbers(self) -> np.ndarray | None:
        """Numbers of the molecules in the first frame of a dump, by ascending ID as in frames."""
        if self.path is None or self._format != "lammps-dump-text":
            return None
        atoms = 0
        with open(str(self.path)) as stream:
            for line in stream:
                if line.startswith("ITEM: NUMBER OF ATOMS"):
                    atoms = int(next(stream))
                if line.startswith("ITEM: ATOMS"):
                    columns = line.split()[2:]
                    if not {"id", "mol"} <= set(columns):
                        return None
                    which = (columns.index("id"), columns.index("mol"))
                    try:
                        rows = np.loadtxt(islice(stream, atoms), int, usecols=which, ndmin=2)
                    except ValueError:  # reading the frames will say what is wrong
                        return None
                    return rows[rows[:, 0].argsort(), 1]
        return None

    def read(self, start: int, stop: int | None, step: int) -> Iterator[Atoms]:
        """Frames, each checked to be one."""
        if self.path is not None:
            yield from self._read_file(slice(start, stop, step))
            return
        frames = self._once if self._once is not None else self._frames
        for atoms in islice(frames, start, stop, step):
            if not isinstance(atoms, Atoms):
                raise TrajectoryError(
                    f"{self.name} holds a {type(atoms).__name__} where ase.Atoms should be."
                )
            yield atoms

    def again(self, head: list[Atoms], start: int, stop: int | None, step: int) -> Iterator[Atoms]:
        """All frames, of which `head` was read before."""
        if self._once is None:
            yield from self.read(start, stop, step)
            return
        if not head:
            raise TrajectoryError(f"{self.name} was an iterator and has been used: give a list.")
        kept = list(head)
        head.clear()
        yield from kept
        # The head ended just behind its last frame.
        if len(kept) == 2:
            left = None if stop is None else stop - start - step - 1
            if left is None or left > 0:
                yield from self.read(step - 1, left, step)

    def _read_file(self, frames: slice) -> Iterator[Atoms]:
        n = 0
        try:
            for atoms in self._images(frames):
                yield atoms
                n += 1
        except TrajectoryError:
            raise
        except UnknownFileTypeError as error:
            raise TrajectoryError(f"{self.name} is of no format that ASE knows.") from error
        except KeyError as error:
            deuterium = ": deuterium is H with another mass in ASE" if error.args == ("D",) else ""
            raise TrajectoryError(
                f"{self.name}: frame {frames.start + n * frames.step} cannot be read: {error} is "
                f"unknown{deuterium}."
            ) from error
        except Exception as error:  # readers raise whatever they meet
            raise TrajectoryError(
                f"{self.name}: frame {frames.start + n * frames.step} cannot be read: {error}."
            ) from error

    def _images(self, frames: slice) -> Iterator[Atoms]:
        # ASE's general reader would collect all frames of these formats first.
        if self._format == "vasp-xdatcar":
            with open(str(self.path)) as stream:
                yield from _xdatcar_frames(stream, frames)
            return
        if self._format != "lammps-dump-text":
            # A name may have an @, which ASE would take for the start of an index.
            yield from iread(str(self.path), index=frames, do_not_split_by_at_sign=True)
            return
        with open(str(self.path)) as stream:
            for atoms in iread_lammps_dump_text(stream, index=frames):
                yield atoms if self._names_elements else self._typed(atoms)

    def _typed(self, atoms: Atoms) -> Atoms:
        """Hydrogen of the types' masses, in place of elements that are the numbers of types."""
        types, masses = atoms.numbers.copy(), self._type_masses
        if not len(masses) and (types == 1).all():
            return atoms
        if types.max() > len(masses):
            raise TrajectoryError(
                f"{self.name} has atoms of type {types.max()} and does not say what they are: give "
                "the masses of all types (--type-mass), or write the elements into the dump."
            )
        # Momenta were made of the dump's velocities and the wrong elements' masses.
        velocities = atoms.get_velocities() if atoms.has("momenta") else None
        atoms.numbers[:] = 1
        atoms.set_masses(masses[types - 1])
        if velocities is not None:
            atoms.set_velocities(velocities)
        return atoms

    @cached_property
    def _names_elements(self) -> bool:
        """Whether a LAMMPS dump says which elements its atoms are, or their masses."""
        with open(str(self.path)) as stream:
            for line in stream:
                if line.startswith("ITEM: ATOMS"):
                    return bool({"element", "mass"} & set(line.split()))
        return True

    @cached_property
    def _format(self) -> str | None:
        try:
            return filetype(str(self.path))
        except UnknownFileTypeError:
            return None


def _xdatcar_frames(stream: TextIO, frames: slice) -> Iterator[Atoms]:
    blocks = islice(_xdatcar_blocks(stream), frames.start, frames.stop, frames.step)
    for block in blocks:
        yield read_vasp_xdatcar(StringIO(block))


def _xdatcar_blocks(stream: TextIO) -> Iterator[str]:
    """Each frame of an XDATCAR as a file of its own: the last header and its lines."""
    header: list[str] = []
    for line in stream:
        title = line
        if "Direct configuration=" not in line:
            header = [line, *islice(stream, 6)]
            title = next(stream, "")
        if not title:  # empty lines at the end
            return
        atoms = sum(map(int, header[6].split()))
        yield "".join([*header, title, *islice(stream, atoms)])
