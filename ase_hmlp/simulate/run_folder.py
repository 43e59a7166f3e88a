"""The folder of a run: files that only grow, and a checkpoint that says how far they are good.

==================  ===============================================================================
config.toml         the configuration as it was given
run.json            what decides the results: settings, model and its hash; and the sessions in
                    which the run was computed, with dates and versions
initial.extxyz      the structure it starts from
trajectory.traj     ASE trajectory: positions, momenta, results of the calculator; ``info`` has
                    ``step`` and ``time_fs``, the header what ASE's own integrators write there
log.csv             one row every few steps, see `ase_hmlp.simulate.observables`
events.jsonl        warnings, with the step at which they were given
checkpoint.npz      everything that is needed to continue to the bit
summary.json        averages, warnings and timings; there once the run has ended
failed.extxyz       the structure a run failed at
lammps/             of engine lammps: data file at step 0, model, the restart file that belongs to
                    the checkpoint, input and log of its last process
==================  ===============================================================================

A checkpoint is written beside the last one and then put in its place, after everything before it is
on the disk. What is behind it in the growing files is cut off when a run is continued.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryWriter

from ase_hmlp.errors import OutputExistsError, RunError
from ase_hmlp.files import lock, write_whole
from ase_hmlp.simulate.integrators import Times

#: Length of the part of an ASE trajectory that is rewritten with every frame: magic, tag, version,
#: number of frames, and where the table of frames is (``ase.io.ulm``).
TRAJECTORY_HEADER = 48

CONFIG = "config.toml"
RUN = "run.json"
INITIAL = "initial.extxyz"
TRAJECTORY = "trajectory.traj"
LOG = "log.csv"
EVENTS = "events.jsonl"
CHECKPOINT = "checkpoint.npz"
SUMMARY = "summary.json"
FAILED = "failed.extxyz"
LOCK = ".lock"
LAMMPS = "lammps"

#: Everything a run leaves.
FILES = (CONFIG, RUN, INITIAL, TRAJECTORY, LOG, EVENTS, CHECKPOINT, SUMMARY, FAILED, LOCK, LAMMPS)


class GrowingText:
    """A text file that lines are added to.

    Parameters
    ----------
    path : Path
    keep : int, optional
        Bytes of an existing file that are good; a new file if not given.
    """

    def __init__(self, path: Path, keep: int | None = None):
        # Unbuffered: a line is one write.
        self._stream = path.open("wb" if keep is None else "r+b", buffering=0)
        if keep is not None:
            _cut(self._stream, keep, path)

    def append(self, line: str) -> None:
        """Write a line."""
        data = line.encode()
        written = 0
        while written < len(data):  # a full disk raises in the next write
            written += self._stream.write(data[written:]) or 0

    def mark(self) -> int:
        """Bring it to the disk; returns its size."""
        os.fsync(self._stream.fileno())
        return self._stream.tell()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class GrowingTrajectory:
    """An ASE trajectory that frames are added to.

    Parameters
    ----------
    path : Path
    properties : list of str
        Results of the calculator to keep.
    description : dict
        For the header.
    keep : (size, header), optional
        What `mark` gave, of an existing file; a new file if not given.
    """

    def __init__(
        self, path: Path, properties, description: dict, keep: tuple[int, bytes] | None = None
    ):
        self._path = path
        self._properties = list(properties)
        if keep is not None:
            size, header = keep
            with path.open("r+b") as stream:
                _cut(stream, size, path)
                stream.seek(0)
                stream.write(header)
        self._writer = TrajectoryWriter(path, "w" if keep is None else "a")
        self._writer.set_description(description)

    def append(self, atoms: Atoms, info: dict) -> None:
        """Write a frame."""
        frame = atoms.copy()
        frame.info = info
        results = atoms.calc.results
        kept = {name: results[name] for name in self._properties if name in results}
        # The calculator itself would write its parameters, bonds among them, with every frame.
        frame.calc = SinglePointCalculator(frame, **kept)
        frame.calc.name = "hmlp"
        self._writer.write(frame)

    def mark(self) -> tuple[int, bytes]:
        """Bring it to the disk; returns its size and the part of it that is rewritten."""
        stream = self._writer.backend.fd
        stream.flush()
        os.fsync(stream.fileno())
        with self._path.open("rb") as reader:
            header = reader.read(TRAJECTORY_HEADER)
        return self._path.stat().st_size, header

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def _cut(stream, size: int, path: Path) -> None:
    stream.seek(0, os.SEEK_END)
    if stream.tell() < size:
        raise RunError(
            f"{path} is shorter than its checkpoint says: it was changed, and the run cannot be "
            "continued."
        )
    stream.truncate(size)
    stream.seek(size)


class RunFolder:
    """A folder that this process writes a run to.

    Parameters
    ----------
    path : str or Path
        Made if it is not there.
    record : dict
        What decides the results, as plain values; a folder of a run with another is refused.
    reading : bool
        Only look at it: nothing is made or locked.

    Raises
    ------
    OutputExistsError
        If it holds something else, or another process is writing to it.
    """

    def __init__(self, path: str | Path, record: dict[str, Any], reading: bool = False):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise OutputExistsError(f"{path} is a file, not a folder to write to.")
        if self.path.is_dir() and not (self.path / RUN).exists():
            # A run that was killed before it wrote anything leaves hidden files only.
            foreign = [p.name for p in self.path.iterdir() if not p.name.startswith(".")]
            if foreign:
                raise OutputExistsError(
                    f"The folder {path} holds {foreign[0]} and no run: name another."
                )
        self._closing = ExitStack()
        with ExitStack() as opened:
            if not reading:
                self.path.mkdir(parents=True, exist_ok=True)
                stream = opened.enter_context((self.path / LOCK).open("w"))
                lock(stream, self.path)
                self._remove_unfinished()
            self._compare(record)
            self._closing = opened.pop_all()

    def _remove_unfinished(self) -> None:
        """Remove what a killed process was about to put in the place of whole files."""
        for folder in (self.path, self.path / LAMMPS):
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)

    def _compare(self, record: dict[str, Any]) -> None:
        path = self.path / RUN
        self.run: dict[str, Any] = {"record": record, "sessions": []}
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            before = _deciding(found["record"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputExistsError(f"{path} is not of a run: name another folder.") from error
        different = _difference(before, _deciding(json.loads(json.dumps(record))))
        if not (self.path / CHECKPOINT).exists():
            return  # its structure was never made: nothing to lose
        self.run = found
        if different:
            raise OutputExistsError(
                f"The folder {self.path} holds another run: {different}. Name another folder."
            )

    @property
    def checkpoint(self) -> dict[str, np.ndarray] | None:
        """The last checkpoint, if there is one."""
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # NumPy raises whatever it meets
            raise RunError(f"{path} is no checkpoint: {error}.") from error

    def save_checkpoint(self, arrays: dict[str, np.ndarray]) -> None:
        """Replace the checkpoint, in one step."""
        packed = io.BytesIO()
        np.savez(packed, **cast(dict[str, Any], arrays))
        write_whole(self.path / CHECKPOINT, packed.getvalue())

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary of a run that has ended, if it has."""
        path = self.path / SUMMARY
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write_json(self, name: str, data: dict[str, Any]) -> None:
        """Write a file of plain values, whole."""
        text = json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(self.path / name, text + "\n")

    def begin_session(self, session: dict[str, Any]) -> None:
        """Note in run.json that this process goes on with the run."""
        self.run["sessions"].append(session)
        self.write_json(RUN, self.run)

    def close(self) -> None:
        """Let others write to it."""
        self._closing.close()


def plain(value):
    """Python's own numbers and lists; NaN, which has no place in JSON, as None."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _deciding(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the places of files whose content it has the hashes of.

    Here and not where records are made: those of folders written before name the places, too.
    """
    config = dict(record.get("config", {}))
    if "model_sha256" in record:
        config.pop("model", None)
    if "structure_sha256" in record and isinstance(config.get("structure"), dict):
        config["structure"] = {k: v for k, v in config["structure"].items() if k != "file"}
    return record | {"config": config}


def _difference(before, now, where: str = "") -> str:
    """The first difference between two records, in words; empty if there is none."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            inner = f"{where}.{key}" if where else str(key)
            found = _difference(before.get(key), now.get(key), inner)
            if found:
                return found
        return ""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for k, (one, other) in enumerate(zip(before, now, strict=True), 1):
            found = _difference(one, other, f"{where} {k}")
            if found:
                return found
        return ""
    where = where.removeprefix("config.")
    return "" if before == now else f"its {where} is {_short(before)}, not {_short(now)}"


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def versions_of(folders: Iterable[Path]) -> list[str]:
    """What runs were computed with: "name version, ..." of all their sessions, each set once.

    Parameters
    ----------
    folders : iterable of Path
        Of runs; those without a run are passed over.
    """
    found: dict[str, None] = {}
    for folder in folders:
        path = folder / RUN
        if path.exists():
            for session in json.loads(path.read_text(encoding="utf-8"))["sessions"]:
                found[", ".join(f"{k} {v}" for k, v in session["versions"].items())] = None
    return list(found)


def header(times: Times, interval: int, molecules: np.ndarray) -> dict[str, Any]:
    """Description of a trajectory, with the keys and units of ASE's own integrators.

    The step of the bonds is in it for spectra, which can be corrected for it; bonds because they
    cannot always be found from a frame: hot molecules come closer to others, for a moment, than
    their own atoms are.

    Parameters
    ----------
    times : Times
        Of the integrators.
    interval : int, steps
    molecules : (m, 2) array
        Indices of the two atoms of each molecule.
    """
    return {
        "type": "molecular-dynamics",
        "timestep": times.timestep * units.fs,
        "bond_timestep": times.timestep / times.bond_steps * units.fs,
        "interval": interval,
        "molecules": molecules.tolist(),
    }
