"""Snapshots as LAMMPS writes them: files of ``dump custom``, binary, one for each snapshot."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ase_hmlp.errors import RunError

_MAGIC = b"DUMPCUSTOM"
_REVISION = 2


def read_snapshot(path: str | Path) -> tuple[int, np.ndarray]:
    """Read a snapshot, to the last bit.

    Parameters
    ----------
    path : str or path
        Of ``dump custom`` with an asterisk and ``.bin`` in the name of the file, atom IDs in the
        first column; LAMMPS's format since 2020, integers of the size "smallbig" or "bigbig".

    Returns
    -------
    step : int
    rows : (n, k) array
        The columns after the ID, by ascending ID.

    Raises
    ------
    RunError
        If the file is cut short or is something else.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        return _parse(data)
    except (struct.error, ValueError) as error:
        raise RunError(f"{path} is no whole snapshot of LAMMPS: {error}.") from error


def _parse(data: bytes) -> tuple[int, np.ndarray]:
    at = 0

    def take(form: str):
        nonlocal at
        values = struct.unpack_from(f"={form}", data, at)
        at += struct.calcsize(f"={form}")
        return values[0] if len(values) == 1 else values

    length = -take("q")
    if not 0 < length < 64 or data[at : at + length] != _MAGIC:
        raise ValueError("it does not begin as one")
    at += length
    endian, revision = take("ii")
    if endian != 1 or revision != _REVISION:
        raise ValueError(f"its byte order or revision ({revision}) is not known")
    step, atoms, triclinic = take("qqi")
    take("6i6d")  # boundary conditions, and bounds of the box
    if triclinic:
        take("3d" if triclinic == 1 else "12d")
    columns = take("i")
    take(f"{take('i')}s")  # units
    if take("c") != b"\0":
        take("d")  # time
    take(f"{take('i')}s")  # names of columns
    rows = np.empty((atoms, columns))
    filled = 0
    for _ in range(take("i")):  # one chunk of each process
        size = take("i")
        chunk = np.frombuffer(data, float, size, at).reshape(-1, columns)
        at += 8 * size
        rows[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    if filled != atoms:
        raise ValueError(f"it has {filled} of {atoms} atoms")
    return step, rows[np.argsort(rows[:, 0]), 1:]
