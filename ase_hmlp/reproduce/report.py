"""Reports: the seed's numbers beside ours as JSON, CSV, text and a picture."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ase_hmlp.analysis.result import Column, Quantity, Result, Table, with_error
from ase_hmlp.files import write_whole
from ase_hmlp.reproduce.folder import Reproduction, Wanted
from ase_hmlp.reproduce.seed import CITATION

#: Width of sentences, characters; tables of numbers are as wide as they need to be.
WIDTH, ENDLESS = 120, 10_000


@dataclass(frozen=True)
class TextTable:
    """A table as it is printed.

    Attributes
    ----------
    title : str
    header : tuple of str
        Names in the first column are aligned to the left, all others to the right.
    rows : list of tuples of str
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Check:
    """A statement of the seed beside what we find.

    Attributes
    ----------
    seed : str
    ours : str
    holds : bool or None
        None where ours does not decide it.
    """

    seed: str
    ours: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        """In a word."""
        return "undecided" if self.holds is None else "yes" if self.holds else "no"


@dataclass(frozen=True)
class Report:
    """A table or figure of the seed beside ours.

    Attributes
    ----------
    result : Result
        Everything, for the files.
    tables : list of TextTable
        What is printed.
    """

    result: Result
    tables: list[TextTable]

    def text(self) -> str:
        """As it is printed."""
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable

        stream = io.StringIO()
        console = Console(file=stream, width=WIDTH, color_system=None, force_terminal=False)
        console.print(self.result.title, soft_wrap=True)
        for table in self.tables:
            shown = RichTable(title=table.title or None, title_justify="left", box=box.SIMPLE_HEAD)
            texts = table.title == CHECKS
            for k, name in enumerate(table.header):
                left = k == 0 or texts
                shown.add_column(name, justify="left" if left else "right", no_wrap=not texts)
            for row in table.rows:
                shown.add_row(*row)
            console.width = WIDTH if texts else ENDLESS
            console.print(shown, markup=False)
        for note in self.result.notes:
            console.print(note, markup=False, soft_wrap=True)
        for line in _provenance(self.result.name, self.result.inputs):
            console.print(line, markup=False, soft_wrap=True)
        lines = [line.rstrip() for line in stream.getvalue().splitlines()]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> list[Path]:
        """Write JSON, CSV, PNG and text; what an earlier report left there is replaced."""
        paths = self.result.save(folder, overwrite=True)
        return [*paths, write_whole(folder / f"{self.result.name}.txt", self.text())]


#: Title of the table of `Check`.
CHECKS = "What the paper says"


def checks_table(checks: Sequence[Check]) -> Table:
    """Checks for the files."""
    return Table(
        "checks",
        (
            Column("seed", words(c.seed for c in checks), "the paper"),
            Column("ours", words(c.ours for c in checks), "ours"),
            Column("agrees", words(c.verdict for c in checks), "agrees"),
        ),
    )


def checks_text(checks: Sequence[Check]) -> TextTable:
    """Checks for the screen."""
    rows = [(c.seed, c.ours, c.verdict) for c in checks]
    return TextTable(CHECKS, ("the paper", "ours", "agrees"), rows)


#: Differences are ones above this many standard errors.
CLEAR = 2.0


def goes(quantities: Sequence[Quantity], sign: float) -> bool | None:
    """Whether a series rises (sign 1) or falls (-1), as far as errors tell.

    Parameters
    ----------
    quantities : sequence of Quantity
    sign : float

    Returns
    -------
    bool or None
        True if its ends differ by `CLEAR` standard errors, and no step goes the other way by as
        many; False if one does; else None.
    """

    def clearly(a: Quantity, b: Quantity, way: float) -> bool:
        # Not where an error is unknown.
        return way * (b.value - a.value) > CLEAR * math.hypot(a.error, b.error)

    if any(clearly(a, b, -sign) for a, b in itertools.pairwise(quantities)):
        return False
    return True if clearly(quantities[0], quantities[-1], sign) else None


def number(value: float, error: float = float("nan")) -> str:
    """A number with its error, as printed; nothing for NaN."""
    if not np.isfinite(value):
        return ""
    text, digits = with_error(value, error)
    return f"{text} ± {digits}" if digits else text


def words(values: Iterable[str]) -> np.ndarray:
    """Words as a column of a table."""
    return np.array(list(values), dtype=object)


def numbers(values: Iterable[float]) -> np.ndarray:
    """Numbers as a column of a table."""
    return np.array(list(values), dtype=float)


def measured(name: str, quantities: Iterable[Quantity]) -> Column:
    """Quantities of one kind as a column, with their errors."""
    some = list(quantities)
    return Column(name, numbers(q.value for q in some), name, numbers(q.error for q in some))


def provenance(reproduction: Reproduction, wanted: Sequence[Wanted]) -> dict:
    """What a report is made with, for its ``inputs``; versions are those of the runs."""
    return reproduction.record | {"versions": reproduction.versions(wanted), "seed": CITATION}


def _provenance(name: str, inputs: dict) -> list[str]:
    if "commands" not in inputs:
        return []
    recipe, model = inputs["recipe"], inputs["model"]
    own = [f"Command: {c}" for c in inputs["commands"] if f" {name} " in f"{c} "]
    # Those of other tables and figures may have run points of this one.
    others = [f"Points by: {c}" for c in inputs["commands"]]
    return [
        "",
        f"Recipe {recipe['name']}: at least {recipe['atoms']} atoms, "
        f"{recipe['settling'] + recipe['equilibration']:g} ps before and "
        f"{recipe['production']:g} ps averaged over.",
        f"Model {Path(model['name']).name}, SHA-256 {model['sha256']}.",
        *(f"Versions: {versions}." for versions in inputs["versions"]),
        *(own or [*others, f"Command: hmlp reproduce report FOLDER {name}"]),
        f"Seed: {inputs['seed']}.",
    ]
