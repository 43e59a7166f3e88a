"""The report of a search: how it went, all candidates, the Pareto front and its knee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from ase_hmlp.figure_style import styled
from ase_hmlp.files import write_whole
from ase_hmlp.simulate.figures import COLOURS
from ase_hmlp.training.frames import ALL
from ase_hmlp.training.search.candidates import Candidate, Judge
from ase_hmlp.training.search.settings import Changes

#: What `write` leaves.
FILES = REPORT, FIGURE = "report.md", "search.png"

#: What `cells` gives.
HEAD = ("error", "score", "meV/atom", "meV/Å", "GPa", "µs/atom", "")


@dataclass(frozen=True)
class Step:
    """What became of a group in a round.

    Attributes
    ----------
    round, tried : int
    group : str
    kept : bool
        Whether one of the group is the best now.
    best : Candidate
        The best now.
    score : float
        Of the best.
    """

    round: int
    group: str
    tried: int
    kept: bool
    best: Candidate
    score: float


@dataclass(frozen=True, eq=False)
class Findings:
    """What a search found.

    Attributes
    ----------
    judge : Judge
    base, best : Candidate
        Where it began and where it ended.
    candidates : list of Candidate
        In the order they were computed, failures among them.
    front : list of Candidate
        From the fastest to the most accurate.
    knee : Candidate
    bends : bool
        Whether the front has a knee; `best` stands in for it otherwise.
    steps : list of Step
    """

    judge: Judge
    base: Candidate
    best: Candidate
    candidates: list[Candidate]
    front: list[Candidate]
    knee: Candidate
    bends: bool
    steps: list[Step]

    def microseconds(self, candidate: Candidate) -> float:
        """Time of an evaluation (µs/atom) as if measured when the base was."""
        return candidate.ratio * self.base.microseconds

    def number(self, candidate: Candidate) -> int:
        """By which a candidate goes in the report."""
        return self.candidates.index(candidate)

    def role(self, candidate: Candidate) -> str:
        """What a candidate is: base, best, knee, on the front."""
        roles = {"base": self.base, "best": self.best, "knee": self.knee}
        names = [name for name, other in roles.items() if other.id == candidate.id]
        if candidate in self.front:
            names.append("front")
        return ", ".join(names)


def in_words(changes: Changes) -> str:
    """Changes in a line."""
    return ", ".join(f"{key} = {_short(value)}" for key, value in changes.items()) or "none"


def _short(value) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k} = {_short(v)}' for k, v in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def write(findings: Findings, name: str, folder: Path) -> Path:
    """Write ``report.md`` and ``search.png``.

    Parameters
    ----------
    findings : Findings
    name : str
        Of the model.
    folder : Path

    Returns
    -------
    Path of the report.
    """
    # PNG without a date or a version in it: the same search gives the same file.
    figure(findings).savefig(folder / FIGURE, metadata={"Software": None})
    return write_whole(folder / REPORT, "\n".join(_lines(findings, name)))


def _lines(f: Findings, name: str) -> list[str]:
    failed = [c for c in f.candidates if c.failure]
    knee = (
        "is the point of the Pareto front farthest below the line that joins its ends, on "
        "logarithmic axes"
        if f.bends
        else "is the best by score, for no point of the Pareto front is below the line that joins "
        "its ends"
    )
    return [
        f"# Search for the settings of {name}",
        "",
        f"{len(f.candidates)} candidates, {len(failed)} of them failed. Error: mean over families "
        f"of errors on {f.base.rows[-1].frames} frames that the fit knew no frame of the same "
        "family of, divided by those of the base. Score: the error and a price for time. Number "
        f"{f.number(f.knee)}, the knee, {knee}.",
        "",
        f"![search]({FIGURE})",
        "",
        "## How it went",
        "",
        "| round | group | tried | kept | score |",
        "|---|---|---|---|---|",
        *(
            f"| {s.round} | {s.group} | {s.tried} "
            f"| {f'{f.number(s.best)}: {in_words(s.best.changes)}' if s.kept else ''} "
            f"| {s.score:.4f} |"
            for s in f.steps
        ),
        "",
        "## The Pareto front",
        "",
        *_table(f, f.front),
        "",
        "## All candidates",
        "",
        *_table(f, sorted((c for c in f.candidates if not c.failure), key=f.judge.score)),
        *([""] if failed else []),
        *(f"- {f.number(c)} ({in_words(c.changes)}): {c.failure}" for c in failed),
        "",
        "## Families",
        "",
        *_families(f),
        "",
    ]


def _table(f: Findings, candidates: Sequence[Candidate]) -> list[str]:
    lines = [f"| | changes | {' | '.join(HEAD)} |", "|---" * (2 + len(HEAD)) + "|"]
    for c in candidates:
        lines.append(
            "| " + " | ".join((str(f.number(c)), in_words(c.changes), *cells(f, c))) + " |"
        )
    return lines


def cells(f: Findings, c: Candidate) -> tuple[str, ...]:
    """Error, score, errors of energy, force and pressure on all frames, time and role: `HEAD`."""
    row = c.rows[-1]
    pressure = "-" if np.isnan(row.pressure_mae) else f"{row.pressure_mae:.2f}"
    return (
        f"{f.judge.error(c):.4f}",
        f"{f.judge.score(c):.4f}",
        f"{row.energy_mae:.2f}",
        f"{row.force_mae:.1f}",
        pressure,
        f"{f.microseconds(c):.2f}",
        f.role(c),
    )


def _families(f: Findings) -> list[str]:
    """Errors of base, best and knee by family."""
    shown = {"base": f.base, "best": f.best, "knee": f.knee}
    by_name = {name: {row.group: row for row in c.rows} for name, c in shown.items()}
    head = [f"{name}: meV/atom, meV/Å" for name in shown]
    lines = [f"| family | frames | {' | '.join(head)} |", "|---" * (2 + len(shown)) + "|"]
    for row in f.base.rows:
        of_family = [rows[row.group] for rows in by_name.values()]
        family = f"**{ALL}**" if row.group == ALL else row.group
        errors = " | ".join(f"{r.energy_mae:.2f}, {r.force_mae:.1f}" for r in of_family)
        lines.append(f"| {family} | {row.frames} | {errors} |")
    return lines


@styled
def figure(f: Findings) -> Figure:
    """Draw errors against times, with the front and its knee."""
    result = Figure(figsize=(7.5, 5.2), layout="constrained")
    axis = result.subplots()
    good = [c for c in f.candidates if np.isfinite(f.judge.score(c))]

    def draw(candidates, *style, **options):
        x, y = [f.microseconds(c) for c in candidates], [f.judge.error(c) for c in candidates]
        axis.plot(x, y, *style, **options)

    draw(good, "o", ms=4, color=COLOURS["static"], label="candidates")
    draw(f.front, "o-", ms=4, color=COLOURS["pressure"], label="Pareto front")
    if f.bends:
        ends = [f.front[0], f.front[-1]]
        draw(ends, "--", lw=0.8, color=COLOURS["static"], label="line of its ends")
    marks = (("base", f.base, "s", "total"), ("best score", f.best, "D", "orientation"))
    for label, candidate, marker, colour in (*marks, ("knee", f.knee, "o", "bond")):
        style = {"mfc": "none", "mec": COLOURS[colour], "mew": 1.5, "ls": "none"}
        draw([candidate], marker, ms=9 if marker == "s" else 11, label=label, **style)
    for c in f.front:
        axis.annotate(
            str(f.number(c)),
            (f.microseconds(c), f.judge.error(c)),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=8,
        )
    axis.set(xscale="log", yscale="log")
    for line in (axis.xaxis, axis.yaxis):
        line.set_major_formatter(ScalarFormatter())
        line.set_major_locator(MaxNLocator(6))
        line.set_minor_locator(NullLocator())
    axis.set(
        title="error on unseen families against time",
        xlabel="processor time of an evaluation (µs/atom)",
        ylabel="error relative to the base",
    )
    axis.legend()
    return result
