"""Results of analyses: values with errors and units, curves, files and pictures of them."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ase_hmlp import __version__
from ase_hmlp.errors import OutputExistsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Quantity:
    """A number with its standard error (NaN where unknown) and unit."""

    name: str
    value: float
    error: float
    unit: str

    @property
    def rounded(self) -> tuple[str, str]:
        """Value and error as printed: to the second digit of the error, or to five digits."""
        return with_error(self.value, self.error)

    def __str__(self) -> str:
        value, error = self.rounded
        return f"{self.name}: {value}{f' ± {error}' if error else ''} {self.unit}".rstrip()


@dataclass(frozen=True, eq=False)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
        In files, with its unit, as ``time_ps``.
    values : (n,) array
    label : str
        In pictures, with its unit, as ``time (ps)``.
    error : (n,) array or None
        Standard errors; a column of its own in files, ``NAME_error``.
    """

    name: str
    values: np.ndarray
    label: str
    error: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length; the first is what the others are drawn against.

    Attributes
    ----------
    name : str
    columns : tuple of Column
    label : str
        What all the others are, with its unit, in pictures; needless for one.
    """

    name: str
    columns: tuple[Column, ...]
    label: str = ""

    def __getitem__(self, name: str) -> np.ndarray:
        """Values of a column by name, as in the file."""
        return self.arrays()[name]

    def arrays(self) -> dict[str, np.ndarray]:
        """Columns by their names in files, errors included."""
        arrays = {}
        for column in self.columns:
            arrays[column.name] = np.asarray(column.values)
            if column.error is not None:
                arrays[f"{column.name}_error"] = np.asarray(column.error)
        return arrays

    def write(self, stream) -> None:
        """Write as CSV."""
        arrays = self.arrays()
        writer = csv.writer(stream)
        writer.writerow(arrays)
        for row in zip(*arrays.values(), strict=True):
            writer.writerow([x if isinstance(x, str) else f"{x:.10g}" for x in row])


@dataclass(frozen=True, eq=False)
class Result:
    """What an analysis found.

    Attributes
    ----------
    name : str
        Of the analysis.
    title : str
        One line that says what it is.
    quantities : tuple of Quantity
    tables : tuple of Table
        Time series, distributions, spectra.
    notes : tuple of str
        Sentences a reader must not miss.
    inputs : dict
        What went in: source and its hash, frames, settings, version of this package.
    draw : callable or None
        Makes the picture from the result; by default one panel for each table.
    """

    name: str
    title: str
    quantities: tuple[Quantity, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: dict = field(default_factory=dict)
    draw: Callable[[Result], Figure] | None = None

    def __getitem__(self, name: str) -> Quantity:
        """A quantity by name."""
        for quantity in self.quantities:
            if quantity.name == name:
                return quantity
        raise KeyError(f"no {name!r} among {[q.name for q in self.quantities]}")

    def table(self, name: str) -> Table:
        """A table by name."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"no {name!r} among {[t.name for t in self.tables]}")

    def with_inputs(self, inputs: dict) -> Result:
        """The same with a record of what went in, and this package's version."""
        return replace(self, inputs={"ase_hmlp": __version__, **inputs})

    def with_notes(self, notes: tuple[str, ...]) -> Result:
        """The same with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def plot(self) -> Figure:
        """Draw it.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ase_hmlp.analysis.figures import panels

        return (self.draw or panels)(self)

    def to_dict(self) -> dict:
        """Plain numbers, strings and lists; None stands for NaN."""
        return {
            "analysis": self.name,
            "title": self.title,
            "quantities": [
                {"name": q.name, "value": q.value, "error": q.error, "unit": q.unit}
                for q in self.quantities
            ],
            "notes": list(self.notes),
            "inputs": self.inputs,
            "tables": {
                t.name: {name: values.tolist() for name, values in t.arrays().items()}
                for t in self.tables
            },
        }

    def paths(self, folder) -> list[Path]:
        """Files that `save` writes: JSON, one CSV for each table, PNG."""
        tables = [
            f"{self.name}.csv" if t.name == self.name else f"{self.name}-{t.name}.csv"
            for t in self.tables
        ]
        return [Path(folder) / name for name in (f"{self.name}.json", *tables, f"{self.name}.png")]

    def save(self, folder, overwrite: bool = False) -> list[Path]:
        """Write ``NAME.json`` (all of it), a CSV file for each table, and the picture.

        Parameters
        ----------
        folder : path
            Made if it is not there.
        overwrite : bool
            Replace files that are there.

        Returns
        -------
        list of paths

        Raises
        ------
        OutputExistsError
            If a file is there already; nothing is written then.
        """
        paths = self.paths(folder)
        if not overwrite:
            refuse_existing(paths)
        Path(folder).mkdir(parents=True, exist_ok=True)
        json_path, *table_paths, png_path = paths
        text = json.dumps(_without_nan(self.to_dict()), indent=1, default=_plain, allow_nan=False)
        with _replacing(json_path) as part:
            part.write_text(text + "\n", encoding="utf-8")
        for table, path in zip(self.tables, table_paths, strict=True):
            with _replacing(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
                table.write(stream)
        with _replacing(png_path) as part:
            self.plot().savefig(part, format="png")
        return paths


def refuse_existing(paths) -> None:
    """Refuse to go on where a file is there already.

    Raises
    ------
    OutputExistsError
    """
    there = [str(path) for path in paths if Path(path).exists()]
    if there:
        raise OutputExistsError(f"{there[0]} is there already: it would be overwritten.")


def with_error(value: float, error: float) -> tuple[str, str]:
    """Print a number to the second digit of its error, or to five digits.

    Parameters
    ----------
    value, error : float
        The error may be NaN or zero: unknown.

    Returns
    -------
    value, error : str
        The second is empty where the error is unknown.
    """
    if not math.isfinite(error) or error <= 0.0:
        return f"{value:.5g}", ""
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f}", f"{error:.{digits}f}"


class _replacing:
    """A file written beside its place and moved there when it is whole."""

    def __init__(self, path: Path):
        self._path, self._part = path, path.with_name(f".{path.name}.part")

    def __enter__(self) -> Path:
        return self._part

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            os.replace(self._part, self._path)
        else:
            self._part.unlink(missing_ok=True)


def _plain(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no plain form")


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(x) for x in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _without_nan(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
