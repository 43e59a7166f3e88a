"""Reports of the rounds: what was found, where the potential was uncertain, how errors moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ase_hmlp.figure_style import STYLE
from ase_hmlp.files import write_whole
from ase_hmlp.simulate.figures import COLOURS
from ase_hmlp.training.learn.config import ExploreSection
from ase_hmlp.training.learn.refit import Errors
from ase_hmlp.training.learn.rounds import NewFrames, Round
from ase_hmlp.training.learn.select import Selection
from ase_hmlp.training.learn.trajectories import Trajectory

_STYLE: dict[Any, Any] = dict(STYLE)

#: What is written.
FILES = REPORT, FIGURE = "report.md", "report.png"

#: What tripped.
TRIPS = {
    "bond": "a bond left the lengths that were trained on",
    "contact": "a contact was shorter than the shortest labelled",
    "cell": "a cell was squashed flat",
    "start": "there was no relaxed structure to start from",
    "other": "a structure had no energy",
    "uncertainty": "a structure was more uncertain than the threshold",
}

#: Sentences of runs that tripped, in a report.
MOST_SENTENCES = 20


@dataclass(frozen=True, eq=False)
class Findings:
    """What a round's report tells of, beside its numbers.

    Attributes
    ----------
    grid : ExploreSection
    found : sequence of Trajectory
    selection : Selection
    new : NewFrames or None
    failures : sequence of str
        Why frames could not be labelled.
    """

    grid: ExploreSection
    found: Sequence[Trajectory]
    selection: Selection
    new: NewFrames | None
    failures: Sequence[str]


def write_round(folder: Path, rounds: Sequence[Round], reason: str, findings: Findings) -> Path:
    """Write ``report.md`` and ``report.png`` of the last of some rounds.

    Parameters
    ----------
    folder : Path
    rounds : sequence of Round
    reason : str
        Why the loop ends here; empty if it goes on.
    findings : Findings

    Returns
    -------
    Path of the report.
    """
    _save(_round_figure(rounds, findings), folder / FIGURE)
    now = rounds[-1]
    lines = [
        f"# Round {now.number}",
        "",
        reason or f"{now.labelled} frames were labelled and fitted; the loop goes on.",
        "",
        "## What was explored",
        "",
        *_explored(findings),
        "",
        "## What tripped",
        "",
        *_tripped(now, findings.found),
        "",
        "## Where the potential was uncertain",
        "",
        f"The most uncertain atom of a structure has {1e3 * now.median_deviation:.1f} meV in the "
        f"median and {1e3 * now.largest_deviation:.1f} meV at most; {now.uncertain} of "
        f"{now.candidates} structures are above {1e3 * now.threshold:.1f} meV, or where a run left "
        "the domain.",
        "",
        *_uncertain(findings),
        "",
        "## What was selected",
        "",
        *_selected(now, findings),
        "",
        "## How the errors moved",
        "",
        *_errors(now),
        "",
        f"![report]({FIGURE})",
        "",
    ]
    return write_whole(folder / REPORT, "\n".join(lines))


def write_summary(folder: Path, rounds: Sequence[Round], reason: str, model: Path) -> Path:
    """Write ``report.md`` and ``report.png`` of all rounds.

    Parameters
    ----------
    folder : Path
    rounds : sequence of Round
    reason : str
        Why the loop ended.
    model : Path
        The last potential.
    """
    _save(_summary_figure(rounds), folder / FIGURE)
    lines = [
        f"# Active learning: {len(rounds)} rounds",
        "",
        reason,
        f"The potential is {model}.",
        "",
        *summary_lines(rounds),
        "",
        "New frames: mean absolute errors of the potential that found them, before it was fitted "
        "to them. Held out: of the next potential, on the frames the training configuration holds "
        "out, without those of the loop.",
        "",
        f"![report]({FIGURE})",
        "",
    ]
    return write_whole(folder / REPORT, "\n".join(lines))


def summary_lines(rounds: Sequence[Round]) -> list[str]:
    """A Markdown table with a row for each round."""
    lines = [
        "| round | training frames | structures | uncertain | tripped | labelled (failed) "
        "| new frames: meV/atom / meV/Å / GPa | held out: meV/atom / meV/Å / GPa |",
        "|---" * 8 + "|",
    ]
    for r in rounds:
        lines.append(
            f"| [{r.number}](round-{r.number:02d}/report.md) | {r.training_frames} "
            f"| {r.candidates} | {r.uncertain} | {r.tripped_runs} of {r.runs} "
            f"| {r.labelled} ({r.failed}) | {_cell(r.before)} "
            f"| {_cell(r.held_out or r.held_out_before)} |"
        )
    return lines


def _cell(errors: Errors | None) -> str:
    if errors is None:
        return ""
    numbers = ((errors.energy, 2), (errors.force, 1), (errors.pressure, 2))
    return " / ".join(f"{x:.{digits}f}" if x == x else "-" for x, digits in numbers)


def _explored(findings: Findings) -> list[str]:
    lines = [
        "| start | runs | tripped | structures | largest deviation, meV | there |",
        "|---" * 6 + "|",
    ]
    for start in dict.fromkeys(t.start for t in findings.found):
        mine = [t for t in findings.found if t.start == start]
        largest = [t.deviations.max(initial=0.0) for t in mine]
        there = mine[int(np.argmax(largest))]
        lines.append(
            f"| {start} | {len(mine)} | {sum(t.trip is not None for t in mine)} "
            f"| {sum(map(len, mine))} | {1e3 * max(largest):.1f} | {there.name} |"
        )
    return lines


def _tripped(now: Round, found: Sequence[Trajectory]) -> list[str]:
    if not now.trips:
        return ["Nothing."]
    lines = [f"- {n} × {TRIPS[kind]}" for kind, n in now.trips.items()]
    tripped = [t for t in found if t.trip is not None]
    if tripped:
        lines += ["", "| run | after | because |", "|---|---|---|"]
        lines += [
            f"| {t.name} | {f'{t.steps[-1]} steps' if len(t) else 'no step'} | {t.trip.sentence} |"
            for t in tripped[:MOST_SENTENCES]
            if t.trip is not None
        ]
        if len(tripped) > MOST_SENTENCES:
            lines.append(f"| and {len(tripped) - MOST_SENTENCES} more | | |")
    return lines


def _uncertain(findings: Findings) -> list[str]:
    """Share of uncertain structures by pressure and temperature."""
    found, selection = findings.found, findings.selection
    columns = [*sorted(findings.grid.temperatures)]
    head = ["relaxed", *(f"{t:g} K" for t in columns)]
    lines = [
        "Structures that are uncertain, of those looked at:",
        "",
        "| GPa | " + " | ".join(head) + " |",
        "|---" * (1 + len(head)) + "|",
    ]
    pressure = np.array([found[t].pressure for t in selection.trajectory])
    temperature = np.array([found[t].temperature for t in selection.trajectory])
    for p in sorted(findings.grid.pressures):
        row = []
        for t in (0.0, *columns):
            mine = (pressure == p) & (temperature == t)
            uncertain = f"{int(selection.uncertain[mine].sum())} of {int(mine.sum())}"
            row.append("left out" if (p, t) in findings.grid.leave_out else uncertain)
        lines.append(f"| {p:g} | " + " | ".join(row) + " |")
    return lines


def _selected(now: Round, findings: Findings) -> list[str]:
    found, selection = findings.found, findings.selection
    if not len(selection.chosen):
        return ["Nothing."]
    lines = [
        f"{now.selected} frames; {now.labelled} labelled, {now.failed} failed.",
        "",
        "| | frame | deviation, meV | distance | Å³/atom | shortest contact, Å | bonds, Å |",
        "|---" * 7 + "|",
    ]
    for n, (c, reach) in enumerate(
        zip(selection.chosen, selection.chosen_distance, strict=True), 1
    ):
        trajectory, k = found[selection.trajectory[c]], int(selection.snapshot[c])
        frame = trajectory.frame(k)
        bonds = np.linalg.norm(frame.bond_vectors(), axis=1)
        contact = frame.shortest_contact
        mark = " (tripped)" if selection.tripped[c] else ""
        lines.append(
            f"| {n} | {trajectory.name}, step {trajectory.steps[k]}{mark} "
            f"| {1e3 * selection.deviation[c]:.1f} | {reach:.2f} "
            f"| {frame.volume / frame.n_atoms:.2f} "
            f"| {f'{contact:.2f}' if np.isfinite(contact) else '> 2.5'} "
            f"| {bonds.min():.3f} to {bonds.max():.3f} |"
        )
    lines += [
        "",
        f"Distance: in widths of the kernels, of the atom farthest from all that was known or "
        f"taken before; below {selection.separation:.2f} a frame is not new.",
    ]
    reasons = Counter(findings.failures)
    lines += [""] * bool(reasons) + [f"- {n} × failed: {why}" for why, n in reasons.items()]
    return lines


def _errors(now: Round) -> list[str]:
    rows = (
        ("the new frames, before they were fitted", now.before),
        ("the same, fitted", now.fitted),
        ("held out, potential of this round", now.held_out_before),
        ("held out, the next one", now.held_out),
    )
    return [
        "| mean absolute errors | meV/atom / meV/Å / GPa |",
        "|---|---|",
        *(f"| {name} | {_cell(errors)} |" for name, errors in rows if errors is not None),
    ]


# ---------------------------------------------------------------- pictures


def _save(figure: Figure, path: Path) -> None:
    # PNG without a date or a version in it: the same round gives the same file.
    figure.savefig(path, metadata={"Software": None})


def _round_figure(rounds: Sequence[Round], findings: Findings) -> Figure:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(14.0, 8.2), layout="constrained")
        axes = figure.subplots(2, 3)
        _draw_deviations(axes[0, 0], findings)
        _draw_grid(figure, axes[0, 1], findings)
        _draw_map(axes[0, 2], findings)
        _draw_tours(axes[1, 0], findings)
        _draw_reliability(axes[1, 1], findings)
        _draw_errors(axes[1, 2], rounds)
        figure.suptitle(f"round {rounds[-1].number}")
    return figure


def _draw_deviations(axis, findings: Findings) -> None:
    selection = findings.selection
    values = 1e3 * selection.deviation
    bins = np.linspace(0.0, max(values.max(initial=0.0), 1.2e3 * selection.threshold), 60)
    axis.hist(values, bins, color=COLOURS["static"], label="found")
    axis.hist(values[selection.chosen], bins, color=COLOURS["orientation"], label="selected")
    axis.axvline(1e3 * selection.threshold, color=COLOURS["total"], ls="--", label="threshold")
    axis.set_yscale("symlog", linthresh=1.0)
    axis.set(
        title="how uncertain", xlabel="deviation of the most uncertain atom (meV)", ylabel="frames"
    )
    axis.legend()


def _draw_grid(figure: Figure, axis, findings: Findings) -> None:
    pressures = sorted(findings.grid.pressures)
    temperatures = [0.0, *sorted(findings.grid.temperatures)]
    largest = np.full((len(temperatures), len(pressures)), np.nan)
    trips = np.zeros(largest.shape, dtype=int)
    for t in findings.found:
        cell = temperatures.index(t.temperature), pressures.index(t.pressure)
        if len(t):
            largest[cell] = np.nanmax([largest[cell], 1e3 * t.deviations.max()])
        trips[cell] += t.trip is not None
    image = axis.pcolormesh(largest, cmap="viridis")
    for (row, column), n in np.ndenumerate(trips):
        if n:
            axis.text(column + 0.5, row + 0.5, f"x{n}", ha="center", va="center", color="white")
    axis.set_xticks(np.arange(len(pressures)) + 0.5, [f"{p:g}" for p in pressures])
    labels = ["relaxed", *(f"{t:g}" for t in temperatures[1:])]
    axis.set_yticks(np.arange(len(temperatures)) + 0.5, labels)
    axis.grid(False)
    axis.set(title="where (x: runs that tripped)", xlabel="GPa", ylabel="K")
    figure.colorbar(image, ax=axis, label="largest deviation (meV)")


def _draw_map(axis, findings: Findings) -> None:
    selection = findings.selection
    layers = (
        (selection.known_map, COLOURS["static"], 4, "training set"),
        (selection.candidate_map, COLOURS["pressure"], 3, "found"),
        (selection.candidate_map[selection.chosen], COLOURS["orientation"], 18, "selected"),
    )
    for points, colour, size, label in layers:
        axis.scatter(*points.T[:2], s=size, color=colour, label=label, lw=0, rasterized=True)
    axis.set(
        title="average environments", xlabel="first component", ylabel="second principal component"
    )
    axis.legend()


def _draw_tours(axis, findings: Findings) -> None:
    starts = list(dict.fromkeys(t.start for t in findings.found))
    colours = matplotlib.color_sequences["tab10"]
    length = findings.grid.ramp + findings.grid.hold
    for n, start in enumerate(starts):
        legs = [t for t in findings.found if t.start == start and t.temperature]
        for k, leg in enumerate(legs):
            time = k * length + 1e-3 * findings.grid.timestep * leg.steps
            label = start if not k else None
            colour = colours[n % len(colours)]
            axis.plot(time, 1e3 * leg.deviations.max(axis=1), color=colour, lw=0.9, label=label)
            if leg.trip is not None and len(leg):
                axis.plot(time[-1:], 1e3 * leg.deviations[-1:].max(axis=1), "x", color=colour)
    axis.axhline(1e3 * findings.selection.threshold, color=COLOURS["total"], ls="--")
    axis.set(title="along the tours", xlabel="ps", ylabel="deviation of the worst atom (meV)")
    axis.legend(fontsize=7, ncols=2)


def _draw_reliability(axis, findings: Findings) -> None:
    axis.set(
        title="new frames: is it wrong where it is uncertain?",
        xlabel="deviation of the most uncertain atom (meV)",
        ylabel="force error, rms (meV/Å)",
    )
    new = findings.new
    if new is None:
        axis.text(0.5, 0.5, "none labelled", ha="center", transform=axis.transAxes)
        return
    p = new.predictions
    square = ((p.forces[1] - p.forces[0]) ** 2 * 1e6).astype(float)
    count = np.bincount(p.frame_of_force)
    rms = np.sqrt(np.bincount(p.frame_of_force, square) / count)
    axis.plot(1e3 * new.deviation, rms, "o", ms=4, color=COLOURS["pair"])
    axis.set_ylim(bottom=0.0)


def _draw_errors(axis, rounds: Sequence[Round]) -> None:
    lines = (
        ("new frames, unseen", [r.before for r in rounds], "o-", COLOURS["bond"]),
        ("held out", [r.held_out_before for r in rounds], "s-", COLOURS["pair"]),
    )
    for label, errors, style, colour in lines:
        force = [np.nan if e is None else e.force for e in errors]
        axis.plot([r.training_frames for r in rounds], force, style, color=colour, label=label)
    last = rounds[-1]
    if last.held_out is not None:
        x = [last.training_frames, last.training_frames + last.labelled]
        y = [last.held_out_before.force, last.held_out.force]
        axis.plot(x, y, "s--", color=COLOURS["pair"])
    axis.set_ylim(bottom=0.0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(title="forces", xlabel="training frames", ylabel="mean absolute error (meV/Å)")
    axis.legend()


def _summary_figure(rounds: Sequence[Round]) -> Figure:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(13.0, 4.0), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        x = [r.number for r in rounds]
        left.plot(x, [r.candidates for r in rounds], "o-", color=COLOURS["static"], label="found")
        left.plot(x, [r.uncertain for r in rounds], "s-", color=COLOURS["bond"], label="uncertain")
        selected = [r.selected for r in rounds]
        left.plot(x, selected, "^-", color=COLOURS["orientation"], label="selected")
        left.set_yscale("symlog", linthresh=1.0)
        left.set(title="frames", xlabel="round")
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.legend()
        for name, field in (("largest", "largest_deviation"), ("median", "median_deviation")):
            middle.plot(x, [1e3 * getattr(r, field) for r in rounds], "o-", label=name)
        threshold = [1e3 * r.threshold for r in rounds]
        middle.plot(x, threshold, "--", color=COLOURS["total"], label="threshold")
        middle.xaxis.set_major_locator(MaxNLocator(integer=True))
        middle.set(title="deviation of the worst atom (meV)", xlabel="round")
        middle.set_ylim(bottom=0.0)
        middle.legend()
        _draw_errors(right, rounds)
    return figure
