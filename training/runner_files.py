"""Data files of n2p2 and RuNNer (``input.data``): what they hold, in their own units.

The format: frames between ``begin`` and ``end``; in them ``lattice`` (three times, or never),
``atom`` (x y z element charge unused fx fy fz), ``energy``, ``charge`` and ``comment`` lines
(https://compphysvienna.github.io/n2p2/topics/cfg_file.html).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.runner import read_runnerdata
from ase.io.runner.runneratoms import Units

from ase_hmlp.errors import DataError
from ase_hmlp.training.frames import open_text

_ONCE = ("energy", "charge")


def iterate_runner(path) -> Iterator[Atoms]:
    """Frames of an n2p2 or RuNNer data file.

    ASE reads the lines of a frame; which lines are a frame is seen to here, because ASE's reader
    takes a comment with the word "begin" for a new frame and keeps one that was cut short.

    Parameters
    ----------
    path : str or Path
        ``.xz`` and ``.gz`` too.

    Yields
    ------
    Atoms
        Numbers as they are in the file (nothing is converted), energy and forces in a calculator,
        the comment in ``info["comment"]``; no stress, the format has none.

    Raises
    ------
    DataError
        Naming the file and the line.
    """
    for where, begin, body, comment in _blocks(Path(path)):
        for name, counts in (("lattice", (0, 3)), *((name, (0, 1)) for name in _ONCE)):
            count = sum(line.split()[0] == name for line in body)
            if count not in counts:
                raise DataError(f"{where} has {count} lines of {name}, not {counts[-1]}.")
        try:
            (read,) = read_runnerdata(
                io.StringIO("".join([begin, *body])), slice(None), Units.ASE, Units.ASE
            )
        except (ValueError, IndexError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise DataError(f"{where} cannot be read: {reason}.") from error
        # The columns nobody uses stay behind.
        atoms = Atoms(read.numbers, read.positions, cell=read.cell, pbc=read.pbc)
        atoms.calc = SinglePointCalculator(atoms, **read.calc.results)
        if comment:
            atoms.info["comment"] = comment
        yield atoms


def _blocks(path: Path) -> Iterator[tuple[str, str, list[str], str]]:
    """Frames as text: how to call one in messages, its first line, its other lines, its comment."""
    start, begin = 0, ""
    body: list[str] = []
    comments: list[str] = []
    with open_text(path) as stream:
        try:
            for n, line in enumerate(stream, start=1):
                word, *rest = line.split(maxsplit=1) or ("#",)
                if word.startswith("#"):
                    continue
                if word == "begin":
                    if start:
                        raise DataError(
                            f"Line {n} of {path}: a frame begins before that of line {start} ends."
                        )
                    start, begin, body, comments = n, line, [], []
                elif not start:
                    raise DataError(f"Line {n} of {path}: {word!r} is outside of any frame.")
                elif word == "end":
                    yield f"The frame in line {start} of {path}", begin, body, " ".join(comments)
                    start = 0
                elif word == "comment":
                    comments.extend(text.strip() for text in rest)
                elif word in ("atom", "lattice", *_ONCE):
                    body.append(line if line.endswith("\n") else line + "\n")
                else:
                    raise DataError(f"Line {n} of {path}: unknown keyword {word!r}.")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text file.") from error
    if start:
        raise DataError(f"{path} ends within the frame that begins in line {start}.")
