"""What a comparison leaves in a folder: tables, numbers and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ase_hmlp import __version__
from ase_hmlp.errors import OutputExistsError
from ase_hmlp.training.fidelity import figures
from ase_hmlp.training.fidelity.compare import Comparison, Row
from ase_hmlp.training.fidelity.convergence import convergence_lines

#: Files of a report.
MARKDOWN, NUMBERS = "comparison.md", "comparison.json"
PICTURES = {
    "dimers.png": figures.dimers,
    "pressures.png": figures.pressures,
    "phonons.png": figures.phonons,
}

_DIGITS = {
    "bond length": 4,
    "frequency": 0,
    "crossing": 2,
    "pressure": 2,
    "enthalpy": 1,
    "phonon": 0,
}


def cells(row: Row) -> list[str]:
    """Quantity, DFT, model, difference, bar, and whether it is met, as text."""
    digits = _DIGITS[row.kind]
    unit = "" if row.bar_unit == row.unit else " %"
    more = {"%": 1, "Å": digits}.get(row.bar_unit, digits)
    return [
        f"{row.quantity} ({row.unit})",
        _number(row.dft, digits),
        _number(row.model, digits),
        _number(row.difference, more, "+") + unit,
        f"{row.bar:g}{unit}",
        "met" if row.met else "missed",
    ]


def _number(value: float, digits: int, sign: str = "") -> str:
    return "-" if np.isnan(value) else f"{value:{sign}.{digits}f}"


def table(rows: list[Row]) -> list[str]:
    """A Markdown table."""
    lines = ["| quantity | DFT | model | difference | bar | |", "|---|---|---|---|---|---|"]
    return lines + ["| " + " | ".join(cells(row)) + " |" for row in rows]


def check_folder(folder, overwrite: bool = False) -> Path:
    """Refuse a folder that has a report already, or is none, before the work is done.

    Raises
    ------
    OutputExistsError
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file, not a folder to write to.")
    if (folder / MARKDOWN).exists() and not overwrite:
        raise OutputExistsError(
            f"{folder} holds a comparison already: give another folder, or --overwrite."
        )
    return folder


def write_report(comparison: Comparison, folder) -> Path:
    """Write ``comparison.md``, ``comparison.json`` and the pictures; makes the folder.

    Returns
    -------
    Path of the Markdown file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw(comparison).savefig(folder / name)
    numbers = {
        "model": comparison.model,
        "model_sha256": comparison.model_sha256,
        "package_version": __version__,
        "reference": comparison.reference.label,
        "rows": [row.to_dict() for row in comparison.rows],
        "remarks": comparison.remarks,
    }
    (folder / NUMBERS).write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    path = folder / MARKDOWN
    path.write_text("\n".join(_lines(comparison)) + "\n")
    return path


def _lines(comparison: Comparison) -> list[str]:
    rows, missed = comparison.rows, comparison.missed
    which = f", SHA-256 `{comparison.model_sha256}`" if comparison.model_sha256 else ""
    lines = [
        f"# {comparison.model} against DFT",
        "",
        f"Model {comparison.model}{which}; ase_hmlp {__version__}. DFT: "
        f"{comparison.reference.label}.",
        "",
        f"{len(rows) - len(missed)} of {len(rows)} quantities are within their bars. The worst of "
        "each kind:",
        "",
        *table(comparison.worst()),
    ]
    if comparison.remarks:
        lines += ["", "## Remarks", "", *(f"- {text}" for text in comparison.remarks)]
    lines += ["", "## All", "", *table(rows)]
    lines += [
        "",
        "Pressures: DFT's stress, and the model's with its own relaxed positions, in DFT's cells. "
        "Enthalpies: E + P V, each relaxed by itself, in the space group, the model to the "
        "pressure that DFT's structure is under: up to 1 GPa more than its nominal one, for it was "
        "relaxed to a stress without Pulay's. Phonons: each at its own relaxed structure, paired "
        "by eigenvectors.",
        "",
        "![dimers](dimers.png)",
        "![pressures](pressures.png)",
        "![phonons](phonons.png)",
    ]
    if comparison.volumes:
        lines += [
            "",
            "## Relaxed volumes (Å³/atom)",
            "",
            "| phase | GPa | DFT | model |",
            "|---|---|---|---|",
            *(
                f"| {phase} | {target:g} | {_number(a, 4)} | {_number(b, 4)} |"
                for (phase, target), (a, b) in comparison.volumes.items()
            ),
        ]
    lines += [
        "",
        "## Modes (1/cm)",
        "",
        "| DFT | model | overlap |",
        "|---|---|---|",
        *(f"| {a:.0f} | {_number(b, 0)} | {o:.2f} |" for a, b, o in comparison.modes),
    ]
    checks = convergence_lines(comparison.reference)
    if checks:
        lines += ["", "## What DFT is converged to", "", *checks]
    return lines
