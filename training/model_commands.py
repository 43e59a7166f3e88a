"""The commands that ask what a model is worth. Heavy imports are inside functions."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ase_hmlp.commands import Noted, given_command, terminable
from ase_hmlp.console import output_console

# ---------------------------------------------------------------- evaluate, info


@click.command()
@click.argument("model")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--by",
    type=click.Choice(["group", "pressure", "all"]),
    default="group",
    show_default=True,
    help="A line for each family of frames, for each and 50 GPa of pressure, or one for all.",
)
@click.option("--split", help="Only frames of this split: test, say.")
@click.option(
    "--pressures",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Only frames whose labelled pressure (GPa) is between these.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(model, data, by, split, pressures, as_json):
    """Print the errors of MODEL (a shipped name or a file) on labelled extended XYZ files DATA."""
    from ase_hmlp.training.evaluate import evaluate_files

    result = evaluate_files(model, data, split, pressures, by == "pressure")
    rows = result.rows[-1:] if by == "all" else result.rows
    if as_json:
        answer = {
            "model": result.model,
            "frames": result.frames,
            "seen_in_training": result.seen,
            "fitted_zeros": result.fitted_zeros,
            "rows": [_without_nan(row.to_dict()) for row in rows],
        }
        click.echo(json.dumps(answer, indent=2))
        return

    console = output_console()
    console.print(table_of_errors(f"Errors of {result.model}", rows))
    for name, zero in result.fitted_zeros.items():
        console.print(
            f"The model has no energy zero of source {name!r}: the median of these frames, "
            f"{1e3 * zero:+.2f} meV/atom above the model's, was taken off."
        )
    if result.seen:
        console.print(
            f"{result.seen} of {result.frames} frames were in the training data: "
            "these are no errors on unseen data."
        )


def _without_nan(row: dict) -> dict:
    return {k: None if v != v else v for k, v in row.items()}


def table_of_errors(title: str, rows):
    """A table of `ase_hmlp.training.evaluate.ErrorRow`."""
    from rich import box
    from rich.table import Table

    table = Table("family", title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.caption = "mean absolute error (root mean square); forces and stress per component"
    table.caption_justify = "left"
    columns = ("frames", "energy\nmeV/atom", "force\nmeV/Å", "pressure\nGPa", "stress\nGPa")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.group,
            str(row.frames),
            _pair(row.energy_mae, row.energy_rmse, 2),
            _pair(row.force_mae, row.force_rmse, 1),
            _pair(row.pressure_mae, row.pressure_rmse, 2),
            f"{row.stress_mae:.2f}" if row.stress_mae == row.stress_mae else "no labels",
        )
    return table


def _pair(mae: float, rmse: float, digits: int) -> str:
    return f"{mae:.{digits}f} ({rmse:.{digits}f})" if mae == mae else "no labels"


@click.command()
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="hmlp-compare",
    show_default=True,
    help="Folder for tables and pictures.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier comparison in the folder.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Other DFT results of generate_fidelity.py than the package's own.",
)
def compare(model, output, overwrite, reference):
    """Compare MODEL (a shipped name or a file) with DFT in what is derived from energies.

    Bond and frequency of the molecule, energy curves of two molecules, static pressure, enthalpies
    and phonons of crystals. No DFT runs: its results come with the package.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ase_hmlp.training.fidelity.compare import compare as compare_with_dft
    from ase_hmlp.training.fidelity.report import cells, check_folder, write_report
    from ase_hmlp.training.progress import TrainingProgress

    folder = check_folder(output, overwrite)
    with TrainingProgress(Console(stderr=True)) as progress:
        result = compare_with_dft(model, reference, progress)
    report = write_report(result, folder)
    table = Table(title=f"{result.model} against DFT", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("quantity", "DFT", "model", "difference", "bar", ""):
        table.add_column(name, justify="left" if name in ("quantity", "") else "right")
    for before, row in zip([None, *result.rows], result.rows, strict=False):
        if before is not None and before.kind != row.kind:
            table.add_section()
        table.add_row(*cells(row), style=None if row.met else "bold")
    console = output_console()
    console.print(table)
    for text in result.remarks:
        console.print(text, markup=False)
    met = len(result.rows) - len(result.missed)
    console.print(f"{met} of {len(result.rows)} quantities are within their bars.")
    console.print(f"Tables and pictures: {report}", soft_wrap=True, markup=False)


@click.command()
@click.argument("model", required=False)
@click.option(
    "--ensembles",
    type=click.Path(path_type=Path),
    help="Other labelled snapshots of generate_ensembles.py than the package's own.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="JSON file for the numbers, too."
)
def reweight(model, ensembles, output):
    """What DFT's own dynamics would average in Phase I, and MODEL's, if given.

    Snapshots of a model's dynamics were labelled by DFT; each counts by how much more likely it is
    in DFT's ensemble than in the model's. No DFT runs: the labels come with the package.
    """
    from ase_hmlp.errors import OutputExistsError
    from ase_hmlp.training.reweighting import averages, energies_of, read_ensembles

    if output is not None and output.exists():
        raise OutputExistsError(f"{output} is there already: give another file.")
    if output is not None and not output.parent.is_dir():
        raise click.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    rows = []
    for ensemble in read_ensembles(ensembles):
        targets = {"DFT": ensemble.dft}
        if model is not None:
            targets[model] = energies_of(model, ensemble)
        rows += [(name, row) for name, u in targets.items() for row in averages(ensemble, u)]
    output_console().print(_reweighting_table(rows))
    click.echo(
        "sampled: by the model whose snapshots these are. First order: corrected by the covariance "
        "with the difference D of the energies, of standard deviation sd(D); reweighted: by "
        "exp(-D / kT), which leaves so many effective snapshots."
    )
    if output is not None:
        numbers = [{"energies": name, **row.to_dict()} for name, row in rows]
        output.write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")


def _reweighting_table(rows):
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("ensemble", "average", "under"):
        table.add_column(name, no_wrap=True)
    for name in ("sampled", "first order", "reweighted", "sd(D)/kT", "snapshots", "effective"):
        table.add_column(name, justify="right")
    before = None
    for name, row in rows:
        if before not in (None, row.ensemble):
            table.add_section()
        before = row.ensemble
        digits = 4 if row.unit == "Å" else 1
        values = (row.sampled, row.first_order, row.reweighted)
        table.add_row(
            row.ensemble,
            f"{row.observable}, {row.unit}",
            Path(name).name.removesuffix(".joblib"),
            *(_with_error(value, error, digits) for value, error in values),
            f"{row.spread:.2f}",
            str(row.snapshots),
            f"{row.effective:.1f}",
        )
    return table


def _with_error(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f} ± {f'{error:.{digits}f}' if error == error else '-'}"


@click.command()
@click.argument("model")
def info(model):
    """Print what MODEL (a shipped name or a file) was trained on, its domain and its errors."""
    from rich.table import Table

    from ase_hmlp.model_io import load_model, model_hash, model_path

    loaded = load_model(model)
    domain, training = loaded.domain, loaded.training
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    files = [f"{f['name']} (SHA-256 {f['sha256'][:16]}…)" for f in training.get("files", [])]
    families = [f"{n} {name}" for name, n in training.get("groups", {}).items()]
    rows = (
        ("model", loaded.name),
        ("file", str(model_path(model))),
        ("SHA-256", model_hash(model)),
        ("written by", f"ase_hmlp {loaded.package_version}, {training.get('date', 'undated')}"),
        ("what it is", training.get("description", "")),
        ("trained on", ", ".join(files)),
        ("frames", ", ".join(families)),
        ("volume", _range(domain.volume, "Å³/atom")),
        ("pressure", training.get("pressure") or _range(domain.pressure, "GPa")),
        ("bond length", _range(domain.bond_length, "Å")),
        ("  refused outside", _range(domain.bond_limits, "Å")),
        ("shortest contact", f"{domain.contact:.3f} Å between molecules"),
        ("  refused below", f"{domain.contact_limit:.3f} Å"),
    )
    for name, value in rows:
        if value:
            table.add_row(name, value)
    console = output_console()
    console.print(table, markup=False)
    held_out = loaded.errors.get("levels", {}).get("all")
    if not held_out:
        console.print("Its file has no errors on held-out data.")
        return
    from ase_hmlp.training.evaluate import ErrorRow

    console.print()
    console.print(table_of_errors("Errors on unseen families", [ErrorRow(**r) for r in held_out]))


def _range(ends: tuple[float, float], unit: str) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g} {unit}"


# ---------------------------------------------------------------- stability


@click.command(cls=Noted)
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the test; the one CONFIG names, or named after it, by default.",
)
@click.option("--model", help="Shipped name or model file, instead of CONFIG's.")
@click.option(
    "--time",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Length of the runs in ps, instead of CONFIG's.",
)
@click.option("--retry-failed", is_flag=True, help="Go on with the runs that crashed.")
@click.option("--report-only", is_flag=True, help="Run nothing; report on what there is.")
def stability(config, output, model, time, retry_failed, report_only):
    """Run dynamics on a grid of points, as the TOML file CONFIG says, and judge every run.

    A run must not crash, no bond leave the model's domain, no two molecules come closer than any
    labelled. Leaves a table, a picture of the predicted deviations, and what tripped as input of
    hmlp label. Killed and started again, it goes on where it was.
    """
    from rich.console import Console

    from ase_hmlp.simulate.sweep_progress import SweepProgress
    from ase_hmlp.training.stability.grid import stability_from_config
    from ase_hmlp.training.stability.report import conclusion, rich_table, sentences

    with terminable(), SweepProgress(Console(stderr=True)) as progress:
        result = stability_from_config(
            config, output, model, time, retry_failed, report_only, progress, given_command()
        )
    console = output_console()
    console.print(rich_table(result.outcomes, result.provenance.model, narrow=True))
    for sentence in sentences(result.outcomes):
        console.print(sentence, markup=False)
    if result.already:
        console.print(f"{result.already} of {len(result.outcomes)} points had ended before.")
    console.print(conclusion(result.outcomes))
    written = ", ".join(map(str, result.paths))
    console.print(f"Written: {written}", soft_wrap=True, markup=False)


# ---------------------------------------------------------------- ablate


@click.command(cls=Noted)
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write to; NAME-ablation beside CONFIG by default.",
)
@click.option(
    "--every",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    help="Take every Nth frame of each family only: N times as fast.",
)
def ablate(config, output, every):
    """Fit the training that the TOML file CONFIG describes with parts of the potential left out.

    Bond, pair, orientation and environment levels, linear and with a kernel, and the published
    fingerprints alone: errors on unseen families, and the time of an evaluation. Killed and started
    again, it goes on where it was.
    """
    from rich.console import Console

    from ase_hmlp.training.ablation.report import rich_table
    from ase_hmlp.training.ablation.run import ablate as run_ablation
    from ase_hmlp.training.progress import TrainingProgress

    with terminable(), TrainingProgress(Console(stderr=True)) as progress:
        result = run_ablation(config, output, progress, given_command(), every=every)
    console = output_console()
    console.print(rich_table(result.ablation, narrow=True))
    known = len({row.found.id for row in result.ablation.rows}) - result.computed
    console.print(f"{result.computed} variants computed{f', {known} before' if known else ''}.")
    console.print(f"Written: {', '.join(map(str, result.paths))}", soft_wrap=True, markup=False)
