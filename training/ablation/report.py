"""The table of an ablation, as text and CSV, and its bars."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from ase_hmlp.figure_style import styled
from ase_hmlp.files import write_whole
from ase_hmlp.simulate.figures import COLOURS
from ase_hmlp.training.ablation.variants import NOTES
from ase_hmlp.training.evaluate import ErrorRow
from ase_hmlp.training.frames import ALL
from ase_hmlp.training.search.candidates import Candidate
from ase_hmlp.training.search.report import in_words

TEXT, TABLE, FIGURE = "ablation.txt", "ablation.csv", "ablation.png"

#: Widths of the table and of the text below it, characters.
WIDTH, PROSE = 150, 100

#: Families by state, of those that have one; the others count in all frames only.
GROUPS = {
    "solid": ("crystal", "hcp", "hot-crystal", "hot-hcp", "phase-I", "phase-II", "strained"),
    "liquid": ("liquid", "hot-liquid", "fluid"),
}

#: Errors by field of `ErrorRow`, with their units and digits.
KINDS = {
    "energy_mae": ("energy", "meV/atom", 2),
    "force_mae": ("force", "meV/Å", 1),
    "pressure_mae": ("pressure", "GPa", 2),
}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    name : str
    found : Candidate
        Errors and time.
    """

    name: str
    found: Candidate


@dataclass(frozen=True, eq=False)
class Ablation:
    """What an ablation found.

    Attributes
    ----------
    name : str
        Of the model.
    rows : list of Row
    base : Candidate
        The configuration as it is.
    """

    name: str
    rows: list[Row]
    base: Candidate

    @property
    def groups(self) -> dict[str, list[str]]:
        """Families by the name of what they are together: all of them, and `GROUPS`."""
        judged = [row.group for row in self.base.rows if row.group != ALL]
        chosen = {name: [f for f in judged if f in known] for name, known in GROUPS.items()}
        return {ALL: judged} | {name: families for name, families in chosen.items() if families}

    def microseconds(self, row: Row) -> float:
        """Time of an evaluation (µs/atom) as if measured when the configuration was."""
        return row.found.ratio * self.base.microseconds


@dataclass(frozen=True)
class Provenance:
    """What the numbers come from.

    Attributes
    ----------
    files : dict of str
        SHA-256 of configuration and data, by name.
    versions : list of str
        "name version, ..." of every set of versions that the folder was worked on with.
    commands : list of str
        As they were given.
    """

    files: dict[str, str]
    versions: list[str]
    commands: list[str]


def mean_error(rows: Sequence[ErrorRow], families: Sequence[str], kind: str) -> float:
    """Mean absolute error over all frames of some families; NaN if none has the label.

    Parameters
    ----------
    rows : sequence of ErrorRow
        By family.
    families : sequence of str
    kind : str
        Of `KINDS`. Forces count by component, energies and pressures by frame; of a family with a
        stress label on some of its frames, all of them count.
    """
    chosen = [row for row in rows if row.group in families and np.isfinite(getattr(row, kind))]
    if not chosen:
        return float("nan")
    size = "atoms" if kind == "force_mae" else "frames"
    weights = [getattr(row, size) for row in chosen]
    return float(np.average([getattr(row, kind) for row in chosen], weights=weights))


def cells(ablation: Ablation, row: Row, groups: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Errors by kind and group, and times, as text."""
    if row.found.failure:
        return ("failed",) * (len(KINDS) * len(groups) + 2)
    errors = [
        f"{mean_error(row.found.rows, families, kind):.{digits}f}".replace("nan", "-")
        for kind, (_, _, digits) in KINDS.items()
        for families in groups.values()
    ]
    return (*errors, f"{row.found.ratio:.2f}", f"{ablation.microseconds(row):.2f}")


def rich_table(ablation: Ablation, narrow: bool = False):
    """The table for a terminal.

    Parameters
    ----------
    ablation : Ablation
    narrow : bool
        Whether to leave out groups and microseconds, which 80 characters have no room for.
    """
    from rich import box
    from rich.table import Table

    groups = {ALL: ablation.groups[ALL]} if narrow else ablation.groups
    title = f"Ablation of {ablation.name}: mean absolute errors on unseen families"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("form", no_wrap=True)
    for name, unit, _ in KINDS.values():
        for k, group in enumerate(groups):
            head = f"{name}\n{unit}\n" if k == 0 else "\n\n"
            table.add_column(head + group, justify="right", no_wrap=True)
    times = ("time\n\nratio", "\n\nµs/atom")[: 1 if narrow else 2]
    for head in times:
        table.add_column(head, justify="right", no_wrap=True)
    for n, row in enumerate(ablation.rows, 1):
        style = None if row.found.changes else "bold"
        shown = cells(ablation, row, groups)[: len(table.columns) - 2]
        table.add_row(str(n), row.name, *shown, style=style)
    return table


def lines(ablation: Ablation, provenance: Provenance) -> list[str]:
    """What is below the table: what rows and columns are, and where the numbers come from."""
    frames = {row.group: row.frames for row in ablation.base.rows}
    groups = [
        f"{name}: {sum(frames[f] for f in families)} frames of {', '.join(families)}."
        for name, families in ablation.groups.items()
    ]
    changes = [
        f"{n}. {row.name}: {in_words(row.found.changes)}"
        + (f" (failed: {row.found.failure})" if row.found.failure else "")
        for n, row in enumerate(ablation.rows, 1)
    ]
    return [
        *groups,
        "",
        *NOTES,
        "",
        "Keys of the training configuration that were changed:",
        *changes,
        "",
        *(f"{name}: SHA-256 {digest}." for name, digest in provenance.files.items()),
        *(f"Versions: {versions}." for versions in provenance.versions),
        *(f"Command: {command}" for command in provenance.commands),
    ]


def text(ablation: Ablation, provenance: Provenance) -> str:
    """The whole report as text."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, force_terminal=False)
    console.print(rich_table(ablation), markup=False)
    for line in lines(ablation, provenance):
        console.print(line, markup=False, highlight=False, width=PROSE)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def csv_table(ablation: Ablation) -> str:
    """CSV: a line for each variant and group or family; nothing where there is no number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    units = ("energy_mae_meV_per_atom", "force_mae_meV_per_A", "pressure_mae_GPa")
    writer.writerow(
        ["number", "form", "changes", "families", "frames", *units, "time_ratio", "us_per_atom"]
    )
    frames = {row.group: row.frames for row in ablation.base.rows}
    judged = ablation.groups[ALL]
    sets = ablation.groups | {f"family {name}": [name] for name in judged}
    for n, row in enumerate(ablation.rows, 1):
        for name, families in sets.items():
            numbers = [
                *(mean_error(row.found.rows, families, kind) for kind in KINDS),
                row.found.ratio,
                ablation.microseconds(row),
            ]
            count = sum(frames[f] for f in families)
            start = [n, row.name, in_words(row.found.changes), name, count]
            writer.writerow(start + [f"{x:.6g}" if np.isfinite(x) else "" for x in numbers])
    return stream.getvalue()


@styled
def figure(ablation: Ablation) -> Figure:
    """Bars: errors on all frames, marks for groups, times."""
    rows, groups = ablation.rows, ablation.groups
    result = Figure(figsize=(14.0, 1.6 + 0.36 * len(rows)), layout="constrained")
    axes = result.subplots(1, len(KINDS) + 1, sharey=True)
    y = np.arange(len(rows))
    own = [not row.found.changes for row in rows]

    def bars(axis, values, colour, digits):
        made = axis.barh(y, values, 0.66, color=colour, alpha=0.75)
        for bar, mine in zip(made, own, strict=True):
            if mine:  # the configuration as it is
                bar.set(alpha=1.0, edgecolor=COLOURS["total"], linewidth=1.2)
        for place, value in zip(y, values, strict=True):  # beside the panel, clear of all marks
            shown = "failed" if np.isnan(value) else f"{value:.{digits}f}"
            at = axis.get_yaxis_transform()
            axis.text(1.02, place, shown, transform=at, fontsize=8, va="center")
        axis.grid(False, axis="y")

    colours = (COLOURS["temperature"], COLOURS["pressure"], COLOURS["volume"])
    marks = dict(zip(GROUPS, ("s", "o"), strict=True))
    for axis, (kind, (name, unit, digits)), colour in zip(
        axes[:-1], KINDS.items(), colours, strict=True
    ):
        by_group = {g: [mean_error(r.found.rows, f, kind) for r in rows] for g, f in groups.items()}
        bars(axis, by_group.pop(ALL), colour, digits)
        for group, values in by_group.items():
            axis.plot(values, y, marks[group], ms=5, mfc="white", mec=COLOURS["total"], label=group)
        axis.set(title=name, xlabel=f"mean absolute error ({unit})", xscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_locator(NullLocator())
        axis.tick_params(axis="x", labelsize=8)
    if len(groups) > 1:
        axes[0].legend(fontsize=8, loc="lower right")
    bars(axes[-1], [row.found.ratio for row in rows], COLOURS["alignment"], 2)
    axes[-1].set(title="time", xlabel="relative to the configuration")
    axes[0].set_yticks(y, [f"{row.name} ({n})" for n, row in enumerate(rows, 1)])
    axes[0].invert_yaxis()
    result.suptitle(f"Ablation of {ablation.name}: errors on unseen families")
    return result


def write_report(ablation: Ablation, provenance: Provenance, folder: Path) -> list[Path]:
    """Write text, CSV and picture; those of an earlier report are replaced.

    Returns
    -------
    list of Path
    """
    paths = [
        write_whole(folder / TEXT, text(ablation, provenance)),
        write_whole(folder / TABLE, csv_table(ablation)),
        folder / FIGURE,
    ]
    # Without a version in it: the same numbers give the same file.
    figure(ablation).savefig(folder / FIGURE, metadata={"Software": None})
    return paths
