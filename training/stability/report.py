"""The report of a test of stability: a table, as text and CSV, and a picture of deviations."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import compress
from pathlib import Path

import numpy as np

from ase_hmlp.files import write_whole
from ase_hmlp.model_io import Model
from ase_hmlp.simulate import run_folder as names
from ase_hmlp.simulate.observables import read_log
from ase_hmlp.simulate.sweep import POINTS, Point
from ase_hmlp.simulate.sweep_figure import Trace, deviations
from ase_hmlp.training.stability.verdict import CRITERIA, Outcome

TABLE, TEXT, FIGURE = "stability.csv", "report.txt", "uncertainty.png"

#: Width of the text, characters.
WIDTH = 140

#: Columns of the table, with their alignment.
HEAD = (
    ("start", "left"),
    ("GPa", "right"),
    ("K", "right"),
    ("verdict", "left"),
    ("ps", "right"),
    ("bonds\nÅ", "right"),
    ("out", "right"),
    ("contact\nÅ", "right"),
    ("deviation, meV\nmean (largest)", "right"),
    ("above", "right"),
    ("g/cm³", "right"),
    ("mean\nK", "right"),
    ("frames", "right"),
)

#: Those that a terminal of 80 characters has room for.
NARROW = (
    "start",
    "GPa",
    "K",
    "verdict",
    "bonds\nÅ",
    "contact\nÅ",
    "deviation, meV\nmean (largest)",
)


@dataclass(frozen=True)
class Provenance:
    """What the numbers come from.

    Attributes
    ----------
    model : Model
    sha256 : str
        Of its file.
    versions : list of str
        "name version, ..." of every set of versions that runs were computed with.
    commands : list of str
        As they were given.
    """

    model: Model
    sha256: str
    versions: list[str]
    commands: list[str]


def cells(outcome: Outcome) -> tuple[str, ...]:
    """The row of a point in the table."""
    o = outcome
    bonds = ""
    if o.shortest_bond_A is not None:
        bonds = f"{o.shortest_bond_A:.3f} to {o.longest_bond_A:.3f}"
    deviation = ""
    if o.largest_deviation_meV is not None:
        deviation = f"{o.mean_deviation_meV:.1f} ({o.largest_deviation_meV:.1f})"
    return (
        o.phase,
        f"{o.pressure_GPa:g}",
        f"{o.temperature_K:g}",
        o.verdict,
        f"{o.time_ps:.4g}",
        bonds,
        str(o.molecules_outside) if bonds else "",
        _number(o.shortest_contact_A, ".3f"),
        deviation,
        _number(o.share_uncertain, ".1%"),
        _number(o.mean_density_g_per_cm3, ".4f"),
        _number(o.mean_temperature_K, ".0f"),
        str(o.frames) if o.frames else "",
    )


def limits(model: Model) -> str:
    """What runs are judged by."""
    domain, limit = model.domain, model.uncertainty_threshold
    low, high = domain.bond_length
    warns = (
        "" if limit is None else f"; the calculator warns of deviations above {1e3 * limit:.1f} meV"
    )
    return (
        f"Limits of the model: bonds of {low:.3f} to {high:.3f} Å, contacts of "
        f"{domain.contact:.3f} Å and more{warns}. Extremes are over every step."
    )


#: What the other columns are.
COLUMNS = (
    "out: molecules whose bond was outside at any time; above: share of the structures looked at "
    "with a deviation above the threshold; density and temperature: means without the first "
    "quarter; frames: written down for labelling."
)


def sentences(outcomes: Sequence[Outcome]) -> list[str]:
    """What was not met, when, and the words of the errors."""
    lines = []
    for o in outcomes:
        if o.passed:
            continue
        where = f"{o.phase}, {o.pressure_GPa:g} GPa, {o.temperature_K:g} K"
        times = {name: getattr(o, f"{name}_ps") for name in CRITERIA}
        said = [f"{CRITERIA[n]} at {t:.4f} ps" for n, t in times.items() if t is not None]
        words = "; ".join(said) or o.verdict
        error = f"{o.error}: " if o.error else ""
        lines.append(f"{where}: {words}{f' ({error}{o.reason})' if o.reason else ''}.")
    return lines


def conclusion(outcomes: Sequence[Outcome]) -> str:
    """How many points met every criterion."""
    return f"{sum(o.passed for o in outcomes)} of {len(outcomes)} points met every criterion."


def rich_table(outcomes: Sequence[Outcome], model: Model, narrow: bool = False):
    """The table for a terminal.

    Parameters
    ----------
    outcomes : sequence of Outcome
    model : Model
    narrow : bool
        Whether to leave out what 80 characters have no room for.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=f"Stability of {model.name}", title_justify="left", box=box.SIMPLE_HEAD)
    table.caption = limits(model) if narrow else f"{limits(model)} {COLUMNS}"
    table.caption_justify = "left"
    shown = [not narrow or name in NARROW for name, _ in HEAD]
    for name, side in compress(HEAD, shown):
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    for outcome in outcomes:
        table.add_row(*compress(cells(outcome), shown), style=None if outcome.passed else "bold")
    return table


def text(outcomes: Sequence[Outcome], provenance: Provenance) -> str:
    """The whole report as text."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, force_terminal=False)
    console.print(rich_table(outcomes, provenance.model), markup=False)
    lines = [
        conclusion(outcomes),
        *sentences(outcomes),
        "",
        f"Model {provenance.model.name}, SHA-256 {provenance.sha256}.",
        *(f"Versions: {versions}." for versions in provenance.versions),
        *(f"Command: {command}" for command in provenance.commands),
        f"Deviations along every run: {FIGURE}.",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True, highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def csv_table(outcomes: Sequence[Outcome]) -> str:
    """CSV of the outcomes; nothing where there is no number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(f.name for f in fields(Outcome))
    for outcome in outcomes:
        values = asdict(outcome).values()
        writer.writerow(f"{v:.10g}" if isinstance(v, float) else v for v in values)
    return stream.getvalue()


def write_report(
    points: Sequence[Point], outcomes: Sequence[Outcome], folder: Path, provenance: Provenance
) -> list[Path]:
    """Write table, text and picture; those of an earlier report are replaced.

    Returns
    -------
    list of Path
    """
    paths = [
        write_whole(folder / TEXT, text(outcomes, provenance)),
        write_whole(folder / TABLE, csv_table(outcomes)),
    ]
    traces = []
    for point, outcome in zip(points, outcomes, strict=True):
        log = folder / POINTS / point.name / names.LOG
        if outcome.largest_deviation_meV is not None:
            trace = point.phase, point.pressure, point.temperature, read_log(log)
            traces.append(Trace(*trace, outcome.crash_ps is not None))
    if traces:
        limit = provenance.model.uncertainty_threshold
        figure = deviations(traces, None if limit is None else 1000.0 * limit, largest=True)
        # Without a version in it: the same runs give the same file.
        figure.savefig(folder / FIGURE, metadata={"Software": None})
        paths.append(folder / FIGURE)
    return paths


def _number(value: float | None, form: str) -> str:
    return "" if value is None or np.isnan(value) else format(value, form)
