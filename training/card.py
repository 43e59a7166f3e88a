"""The model card: what a model was trained on, how wrong it is, and pictures of it."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np

from ase_hmlp.files import write_whole
from ase_hmlp.fingerprints import overlap_names
from ase_hmlp.model_io import Model
from ase_hmlp.potential import LEVELS, Potential
from ase_hmlp.training.evaluate import ErrorRow, Predictions, error_table
from ase_hmlp.training.frames import ALL, file_digest

matplotlib.use("Agg")
# The backend must be chosen first.
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator, ScalarFormatter

STAGES = {
    "bond": "bond",
    "pair": "+ pair",
    "orientation": "+ orientation",
    "environment": "+ environment",
    "all": "all, refitted together",
}

#: What an unseen family does not say.
RELATIVES = (
    "A frame made from one of another family, such as molecules displaced from a minimum, is "
    "judged by a fit that knows the frame it was made from."
)


def error_lines(rows: list[ErrorRow]) -> list[str]:
    """A Markdown table of errors by family."""
    lines = [
        "| family | frames | energy meV/atom | force meV/Å | pressure GPa | stress GPa |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = "**all**" if row.group == ALL else row.group
        lines.append(
            f"| {name} | {row.frames} | {row.energy_mae:.2f} ({row.energy_rmse:.2f}) "
            f"| {row.force_mae:.1f} ({row.force_rmse:.1f}) | {_stress_cells(row)} |"
        )
    return lines


def _stress_cells(row: ErrorRow) -> str:
    if np.isnan(row.stress_mae):
        return "no labels | no labels"
    return f"{row.pressure_mae:.2f} ({row.pressure_rmse:.2f}) | {row.stress_mae:.2f}"


def level_lines(held_out: dict[str, Predictions]) -> list[str]:
    """A Markdown table of mean absolute errors by family and level."""
    tables = {stage: error_table(held_out[stage]) for stage in STAGES if stage in held_out}
    lines = [
        "| family | " + " | ".join(STAGES[stage] for stage in tables) + " |",
        "|---" * (1 + len(tables)) + "|",
    ]
    for rows in zip(*tables.values(), strict=True):
        name = "**all**" if rows[0].group == ALL else rows[0].group
        cells = (f"{r.energy_mae:.1f} / {r.force_mae:.0f} / {r.pressure_mae:.2f}" for r in rows)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def zero_lines(training: dict) -> list[str]:
    """A Markdown table of the sources' energy zeros, if there are several."""
    zeros = training.get("zeros", {})
    if len(zeros) < 2:
        return []
    return [
        "",
        "Energies of one source are comparable, of two sources not: each has its own zero, found "
        "by the fit. The model's energies are on the first one's. For errors on unseen frames, a "
        "source that a fit knew no frame of has the median of what the fit leaves of its energies.",
        "",
        "| source | energy zero meV/atom | weight |",
        "|---|---|---|",
        *(
            f"| {name or 'unnamed'} | {1e3 * zero:+.2f} "
            f"| {', '.join(f'{w:g}' for w in training['weights'][name])} |"
            for name, zero in zeros.items()
        ),
    ]


def reliability_lines(reliability: dict) -> list[str]:
    """A Markdown table of errors against predicted deviations."""
    if not reliability:
        return []
    exponent = reliability.get("exponent", 1.0)  # models from before it have none
    power = f", to the power of {exponent:.1f}" if exponent != 1.0 else ""
    lines = [
        "",
        "## Predicted deviations",
        "",
        "Unseen frames and their atoms in order of predicted deviation, in groups of equally many; "
        f"root mean squares. Deviations are scaled as a whole{power}, so that those of frames (the "
        "mean over their atoms) are as large as the errors of their energies; the calculator warns "
        f"of atoms above {1e3 * reliability['threshold']:.1f} meV.",
    ]
    for key, title in (("unseen", "Held-out families"), ("test_split", "Test split")):
        if key not in reliability:
            continue
        table = reliability[key]
        lines += ["", f"{title}:", "", "| group | " + " | ".join(_RELIABILITY.values()) + " |"]
        lines.append("|---" * (1 + len(_RELIABILITY)) + "|")
        columns = zip(*(table[name] for name in _RELIABILITY), strict=False)
        lines += [
            f"| {n} | " + " | ".join(f"{1e3 * x:.1f}" for x in row) + " |"
            for n, row in enumerate(columns, 1)
        ]
    return lines


def form_lines(potential: Potential) -> list[str]:
    """A Markdown list of the levels."""
    bond, pair, orientation, environment = (getattr(potential, k) for k in LEVELS)
    lines = [f"- bond: {bond.form}, minimum at {bond.r0:.4f} Å"]
    if pair is not None:
        terms = np.any(pair.coefficients, axis=1).sum()
        lines.append(
            f"- pair: {len(pair.basis.functions)} radial functions of the distance of two atoms x "
            f"{terms} terms in the stretches of their bonds, to {pair.basis.cutoff} Å between "
            "centres"
        )
    if orientation is not None:
        terms = np.any(orientation.coefficients, axis=1).sum()
        lines.append(
            f"- orientation: {len(orientation.basis.functions)} radial functions x {terms} "
            f"invariants to {orientation.basis.cutoff} Å, fp_EQQ among them"
        )
    if environment is not None:
        kernel = environment.regressor
        lines.append(
            f"- environment: {len(environment.names)} fingerprints of a molecule's neighbours to "
            f"{environment.basis.cutoff} Å, {np.count_nonzero(kernel.linear)} of them linear, and "
            f"by {len(kernel.representatives)} representatives on {len(kernel.transform)} "
            "components"
        )
        if environment.overlap is not None:
            clusters = environment.overlap
            lines.append(
                f"- overlaps, {len(overlap_names())} of those fingerprints: orbitals that overlap "
                f"to {clusters.support} Å, Gaussians of "
                f"{', '.join(map(str, clusters.widths))} Å, clusters to {clusters.reach} Å"
            )
    return lines


_RELIABILITY = {
    "frame_deviation": "deviation of frames meV/atom",
    "energy_error": "error of energies meV/atom",
    "atom_deviation": "deviation of atoms meV",
    "force_error": "error of forces meV/Å",
}


def card_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Paths of the card and its picture."""
    return folder / f"{name}.md", folder / f"{name}.png"


def write_card(
    model: Model,
    saved: Path,
    held_out: dict[str, Predictions],
    fitted: Predictions,
    tests: Predictions | None,
    folder,
) -> Path:
    """Write ``NAME.md`` and ``NAME.png`` into the folder of the model file.

    Parameters
    ----------
    model : Model
    saved : Path
        Its file, whatever that is called yet.
    held_out : dict of Predictions, by level
    fitted : Predictions of the training frames
    tests : Predictions of the frames that are labelled as tests, if there are any
    folder : str or Path

    Returns
    -------
    Path of the card.
    """
    card, picture = card_files(Path(folder), model.name)
    drawn = io.BytesIO()
    _draw(model, held_out, fitted, drawn)
    write_whole(picture, drawn.getvalue())
    t, d = model.training, model.domain
    tested = (
        [
            "",
            "On the test split, whole trajectories that no fit has ever seen:",
            "",
            *error_lines(error_table(tests)),
        ]
        if tests is not None
        else []
    )
    scheme = {
        "leave-one-family-out": "Each family predicted by a fit to all the others.",
        "families": "Families the fit has never seen.",
    }[model.errors["scheme"]]
    lines = [
        f"# {model.name}",
        "",
        t["description"],
        "",
        f"Written by ase_hmlp {model.package_version} on {t['date']}; SHA-256 of the model file "
        f"`{file_digest(saved)}`.",
        "",
        "## Errors on unseen families",
        "",
        f"{scheme} Mean absolute error (root mean square in brackets); forces per component, "
        "pressure is a third of the trace of the stress.",
        "",
        RELATIVES,
        "",
        *error_lines(error_table(held_out["all"])),
        "",
        "By level (energy in meV/atom / force in meV/Å / pressure in GPa):",
        "",
        *level_lines(held_out),
        "",
        "On the frames it was fitted to:",
        "",
        *error_lines(error_table(fitted)),
        *tested,
        *reliability_lines(model.errors.get("reliability", {})),
        "",
        f"![errors]({picture.name})",
        "",
        "## Data",
        "",
        "| file | SHA-256 |",
        "|---|---|",
        *(f"| {f['name']} | `{f['sha256'][:16]}…` |" for f in t["files"]),
        "",
        f"{t['frames']} frames, " + ", ".join(f"{n} {g}" for g, n in t["groups"].items()) + ". "
        f"{t['rejected']} frames left out for being outside the configured limits.",
        *zero_lines(t),
        "",
        "## Domain",
        "",
        f"- volume {d.volume[0]:.2f} to {d.volume[1]:.2f} Å³/atom, "
        f"pressure {t.get('pressure') or f'{d.pressure[0]:.0f} to {d.pressure[1]:.0f} GPa'}",
        f"- bonds {d.bond_length[0]:.3f} to {d.bond_length[1]:.3f} Å; refused outside "
        f"{d.bond_limits[0]:.3f} to {d.bond_limits[1]:.3f} Å",
        f"- shortest contact between molecules {d.contact:.3f} Å; refused below "
        f"{d.contact_limit:.3f} Å",
        "",
        "## Form",
        "",
        *form_lines(model.potential),
        "",
        "## Fit",
        "",
        f"{t['fit']['coefficients']} coefficients from {t['fit']['observations']} labels; "
        "jitter relative to the diagonal: "
        + ", ".join(f"{k[:-7]} {v:.0e}" for k, v in t["fit"].items() if k.endswith(" jitter"))
        + f". Seconds: {t['seconds']:.0f} in all ("
        + ", ".join(f"{k} {v:.0f}" for k, v in t["fit"]["seconds"].items())
        + "). Versions: "
        + ", ".join(f"{k} {v}" for k, v in t["versions"].items())
        + ".",
        "",
    ]
    return write_whole(card, "\n".join(lines))


def _draw(
    model: Model, held_out: dict[str, Predictions], fitted: Predictions, stream: io.BytesIO
) -> None:
    """Parity plots, errors by level and family, learning curve."""
    p = held_out["all"]
    groups = sorted(set(p.group.tolist()))
    colours = dict(zip(groups, matplotlib.color_sequences["tab10"] * 5, strict=False))
    figure, axes = plt.subplots(2, 4, figsize=(17, 8), constrained_layout=True)
    quantities = (
        ("energy", p.energy, p.group, "eV/atom"),
        ("force component", p.forces, p.group[p.frame_of_force], "eV/Å"),
        ("pressure", p.pressure, p.group, "GPa"),
    )
    for axis, (name, (x, y), group, unit) in zip(axes[0, :3], quantities, strict=True):
        for g in groups:
            mine = group == g
            axis.plot(x[mine], y[mine], ".", ms=2, color=colours[g], label=g, rasterized=True)
        labelled = x[np.isfinite(x)]
        if not len(labelled):
            axis.set(title=f"no {name} was labelled")
            continue
        ends = [labelled.min(), labelled.max()]
        axis.plot(ends, ends, "k-", lw=0.7)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set(xlabel=f"DFT {name} ({unit})", ylabel=f"unseen {name} ({unit})")
    axes[0, 0].legend(markerscale=5, fontsize=8)
    stages = [s for s in STAGES if s in held_out]
    last = [error_table(held_out[s])[-1] for s in stages]
    for key, label in (("energy_mae", "energy, meV/atom"), ("force_mae", "force, meV/Å")):
        axes[1, 0].semilogy(
            [STAGES[s] for s in stages], [getattr(r, key) for r in last], "o-", label=label
        )
    axes[1, 0].tick_params(axis="x", labelrotation=20, labelsize=8)
    axes[1, 0].set(title="error by level", ylabel="mean absolute error")
    axes[1, 0].legend(fontsize=8)
    unseen = {r.group: r for r in error_table(p)}
    seen = {r.group: r for r in error_table(fitted)}
    x = np.arange(len(groups))
    axes[1, 1].bar(
        x - 0.2,
        [seen[g].force_mae if g in seen else 0.0 for g in groups],
        0.4,
        label="fitted",
        color="0.7",
    )
    axes[1, 1].bar(
        x + 0.2,
        [unseen[g].force_mae for g in groups],
        0.4,
        label="unseen",
        color=[colours[g] for g in groups],
    )
    axes[1, 1].set_xticks(x, groups, rotation=20, fontsize=8)
    axes[1, 1].set(title="force error by family", ylabel="meV/Å")
    axes[1, 1].legend(fontsize=8)
    curve = model.errors["learning_curve"]
    if curve:
        n = [c["frames"] for c in curve]
        axes[1, 2].loglog(n, [c["force_mae"] for c in curve], "o-", label="force, meV/Å")
        axes[1, 2].loglog(n, [c["energy_mae"] for c in curve], "s-", label="energy, meV/atom")
        axes[1, 2].minorticks_off()
        axes[1, 2].set_xticks(n)
        axes[1, 2].set_yticks([2, 5, 10, 20, 50, 100])
        axes[1, 2].xaxis.set_major_formatter(ScalarFormatter())
        axes[1, 2].yaxis.set_major_formatter(ScalarFormatter())
        axes[1, 2].legend(fontsize=8)
    axes[1, 2].set(
        title="learning curve, one held-out split",
        xlabel="training frames, all but the families never held out",
    )
    _draw_reliability(axes[:, 3], model.errors.get("reliability", {}))
    axes[1, 0].set_yticks([5, 10, 20, 50, 100, 200])
    axes[1, 0].yaxis.set_major_formatter(ScalarFormatter())
    figure.suptitle(f"{model.name}: {model.training['frames']} training frames")
    figure.savefig(stream, format="png", dpi=110)
    plt.close(figure)


def _draw_reliability(axes, reliability: dict) -> None:
    """Errors against predicted deviations: energies of frames, forces on atoms."""
    for axis, (x, y), unit in zip(
        axes,
        (("frame_deviation", "energy_error"), ("atom_deviation", "force_error")),
        ("meV/atom", "meV/Å"),
        strict=True,
    ):
        for key, marker in (("unseen", "o-"), ("test_split", "s--")):
            if key in reliability:
                axis.loglog(
                    1e3 * np.array(reliability[key][x]),
                    1e3 * np.array(reliability[key][y]),
                    marker,
                    label={"unseen": "held-out families", "test_split": "test split"}[key],
                )
        axis.set(xlabel=f"{_RELIABILITY[x]}", ylabel=f"rms {y.replace('_', ' ')} ({unit})")
        if reliability:
            axis.legend(fontsize=8)
    if reliability:
        ends = [
            1e3 * v
            for v in (
                min(reliability["unseen"]["frame_deviation"]),
                max(reliability["unseen"]["frame_deviation"]),
            )
        ]
        axes[0].plot(ends, ends, "k-", lw=0.7)
