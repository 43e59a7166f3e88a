"""The commands that make models and what they are made from. Heavy imports are inside functions."""

from __future__ import annotations

from pathlib import Path

import click

from ase_hmlp.commands import terminable
from ase_hmlp.console import output_console
from ase_hmlp.training.model_commands import table_of_errors

# ---------------------------------------------------------------- train


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for model and card; NAME-training beside CONFIG by default.",
)
@click.option("--overwrite", is_flag=True, help="Replace a model that is already there.")
@click.option(
    "--set",
    "changes",
    metavar="KEY=VALUE",
    multiple=True,
    help="Another value for a key, as in TOML: --set 'weights.force = 30'; as often as you like.",
)
def train(config, output, overwrite, changes):
    """Train the model that the TOML file CONFIG describes.

    Predictions of held-out families are kept as they are made: killed and started again, it fits
    once more, and predicts the families that are left.
    """
    from rich.console import Console

    from ase_hmlp.training.evaluate import error_table
    from ase_hmlp.training.progress import TrainingProgress
    from ase_hmlp.training.train import train_from_config

    with TrainingProgress(Console(stderr=True)) as progress:
        result = train_from_config(config, output, progress, overwrite, changes)
    console = output_console()
    console.print(table_of_errors("Errors on unseen families", error_table(result.held_out["all"])))
    console.print(f"Model: {result.model_path}", soft_wrap=True)
    console.print(f"Card:  {result.card_path}", soft_wrap=True)


# ---------------------------------------------------------------- label


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--retry-failed", is_flag=True, help="Try again all that earlier runs set aside.")
def label(config, retry_failed):
    """Label structures by DFT, as the TOML file CONFIG says.

    Each frame is written as it finishes. Killed and started again, it goes on where it was. Frames
    that fail are set aside with the reason, and counted; the exit code is 0 all the same, and 2
    only if the run had to stop, as after many failures in a row (run.stop_after).
    """
    from rich.console import Console

    from ase_hmlp.training.label import label_from_config, read_failures
    from ase_hmlp.training.progress import TrainingProgress

    # Ctrl-C ends the calculations in flight too.
    with terminable(), TrainingProgress(Console(stderr=True)) as progress:
        result = label_from_config(config, retry_failed, progress)
    console = Console(soft_wrap=True)
    before_this = f", {result.already} before" if result.already else ""
    console.print(f"{result.labelled} frames labelled in {result.seconds:.0f} s{before_this}.")
    if result.duplicates:
        console.print(f"{result.duplicates} structures were in the input more than once.")
    if result.cut:
        console.print("A half-written frame was cut off the output, and labelled again.")
    if result.failed or result.set_aside:
        console.print(
            f"{result.failed} failed, {result.set_aside} had failed before: set aside in "
            f"{result.failures}; --retry-failed tries them again."
        )
        reasons = [record["reason"] for record in read_failures(result.failures)]
        for reason in sorted(set(reasons), key=reasons.count, reverse=True)[:5]:
            console.print(f"  {reasons.count(reason)} x {reason}", markup=False)
    if result.labelled or result.already:
        console.print(f"Labelled frames: {result.output}", markup=False)


# ---------------------------------------------------------------- import


@click.command("import")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write to; NAME-import beside CONFIG by default.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier import there.")
def import_frames(config, files, output, overwrite):
    """Import labelled frames of other codes, as the TOML file CONFIG says.

    FILES, if given, in place of the configuration's input: data of n2p2 or RuNNer, or anything ASE
    reads. Converts units, checks signs, sets aside what is not fit for training, with the reason.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from ase_hmlp.training.importing import import_from_config, report_lines
    from ase_hmlp.training.progress import TrainingProgress

    with TrainingProgress(Console(stderr=True)) as progress:
        result = import_from_config(config, files, output, overwrite, progress)
    console = output_console()
    console.print(Markdown("\n".join(report_lines(result))))
    for name, frames in result.files.items():
        console.print(f"{result.folder / name}: {frames} frames", soft_wrap=True, markup=False)


# ---------------------------------------------------------------- learn


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Work folder; beside CONFIG and named like it by default.",
)
@click.option(
    "--retry-failed", is_flag=True, help="Label again what failed, where a round stands still."
)
def learn(config, output, retry_failed):
    """Explore, select, label and fit again, as the TOML file CONFIG says, until nothing is new.

    Killed and started again, it goes on where it was. Leaves a report for each round.
    """
    from rich.console import Console

    from ase_hmlp.training.learn.loop import learn_from_config
    from ase_hmlp.training.progress import TrainingProgress

    with terminable(), TrainingProgress(Console(stderr=True)) as progress:
        result = learn_from_config(config, output, retry_failed, progress)
    console = output_console()
    console.print(_rounds_table(result.rounds))
    console.print(result.reason, markup=False)
    console.print(f"Model:  {result.model}", soft_wrap=True, markup=False)
    console.print(f"Report: {result.report}", soft_wrap=True, markup=False)


def _rounds_table(rounds):
    from rich import box
    from rich.table import Table

    table = Table("round", title="Active learning", title_justify="left", box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)  # 80 columns
    table.caption = (
        "mean absolute errors in meV/atom, meV/Å: new, on the new frames before they were fitted to"
    )
    table.caption_justify = "left"
    for name in (
        "struc-\ntures",
        "uncer-\ntain",
        "runs\ntripped",
        "labelled\n(failed)",
        "new\nenergy",
        "\nforce",
        "held out\nenergy",
        "\nforce",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rounds:
        new, held_out = r.before, r.held_out or r.held_out_before
        errors = [(f"{e.energy:.2f}", f"{e.force:.1f}") if e else ("", "") for e in (new, held_out)]
        table.add_row(
            str(r.number),
            str(r.candidates),
            str(r.uncertain),
            f"{r.tripped_runs} of {r.runs}",
            f"{r.labelled} ({r.failed})",
            *errors[0],
            *errors[1],
        )
    return table


# ---------------------------------------------------------------- search


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write to; beside CONFIG and named like it by default.",
)
def search(config, output):
    """Search for settings of a training, group by group, as the TOML file CONFIG says.

    Judged by errors on unseen families and by the time of an evaluation. Killed and started again,
    it goes on where it was. Leaves the Pareto front, and a configuration for `hmlp train`.
    """
    from rich.console import Console

    from ase_hmlp.training.progress import TrainingProgress
    from ase_hmlp.training.search.loop import search_from_config
    from ase_hmlp.training.search.report import in_words

    with terminable(), TrainingProgress(Console(stderr=True)) as progress:
        result = search_from_config(config, output, progress)
    console = output_console()
    findings = result.findings
    console.print(_front_table(findings))
    known = len(findings.candidates) - result.computed
    console.print(f"{result.computed} candidates computed{f', {known} before' if known else ''}.")
    knee = in_words(findings.knee.changes) if findings.knee.changes else "the base as it is"
    console.print(f"Knee:   {knee}", soft_wrap=True, markup=False)
    console.print(f"Train:  {result.config}", soft_wrap=True, markup=False)
    console.print(f"Report: {result.report}", soft_wrap=True, markup=False)


def _front_table(findings):
    from rich import box
    from rich.table import Table

    from ase_hmlp.training.search.report import HEAD, cells

    table = Table(title="Pareto front", title_justify="left", box=box.SIMPLE_HEAD)
    table.caption = "error: on unseen families, divided by the base's; numbers as in the report"
    table.caption_justify = "left"
    for name in ("no.", *HEAD):
        table.add_column(name, justify="right", no_wrap=True)
    for candidate in findings.front:
        *row, role = cells(findings, candidate)
        other = role.removesuffix("front").removesuffix(", ")  # all of them are on the front
        table.add_row(str(findings.number(candidate)), *row, other)
    return table
