"""The commands ``hmlp demo``, ``run`` and ``sweep``. Heavy imports are inside functions."""

from __future__ import annotations

from pathlib import Path

import click

from ase_hmlp.commands import INTERRUPTED, UNFINISHED, terminable
from ase_hmlp.console import output_console

# ---------------------------------------------------------------- demo


@click.command()
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


@click.command()
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
def run(config, output, engine, ranks):
    """Run the molecular dynamics that the TOML file CONFIG describes.

    Killed and started again, it goes on where it was, to the same end.
    """
    from rich.console import Console

    from ase_hmlp.simulate.run import run_from_config
    from ase_hmlp.simulate.run_progress import RunProgress

    with RunProgress(Console(stderr=True)) as progress, terminable():
        summary, folder = run_from_config(
            config, output, progress.on_row, progress.preparing, engine, ranks
        )
    _print_run(output_console(), summary, folder)


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


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the sweep; the one CONFIG names, or named after it, by default.",
)
@click.option("--retry-failed", is_flag=True, help="Try again the points that failed.")
def sweep(config, output, retry_failed):
    """Run a grid of pressures, temperatures and phases, as the TOML file CONFIG says.

    Killed and started again, it runs what has not ended yet. The exit code is 1 if a point failed
    or could not begin.
    """
    from rich.console import Console

    from ase_hmlp.errors import RunError
    from ase_hmlp.simulate.sweep import FIGURE, TABLE, sweep_from_config
    from ase_hmlp.simulate.sweep_progress import SweepProgress

    with terminable(), SweepProgress(Console(stderr=True)) as progress:
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
