"""The command group ``hmlp reproduce``. Heavy imports are inside functions."""

from __future__ import annotations

from pathlib import Path

import click

from ase_hmlp.commands import Noted, given_command
from ase_hmlp.console import output_console

#: What can be reproduced, and what it is; `ase_hmlp.reproduce.targets` has the rest.
TARGETS = {
    "table1": "Table 1: <EQQ> of liquid and solid at melting, of Phase I and Phase II.",
    "fig2": "Fig. 2: vibrons of solid and liquid, bond length, E2g phonon against pressure.",
    "fig3b": "Fig. 3b: pair distribution of molecules in the liquid, scaled by density.",
    "fig4": "Fig. 4: pair distributions of solid and liquid at melting, 20 and 120 GPa.",
    "fig5": "Fig. 5: energy of fp_EQQ in solid and liquid; two molecules in H, X and T.",
    "fig6": "Fig. 6: order parameter of Phase II against temperature.",
}


@click.group()
def reproduce():
    """Reproduce a table or figure of Zong, Wiebe and Ackland (2020), beside our own.

    Every point (a phase at a pressure and temperature) is a run in the output folder that all
    targets share. Killed and started again, it goes on where it was.
    """


def _target(name: str):
    def command(
        output,
        quick,
        full,
        recipe,
        model,
        workers,
        phase_ii,
        points,
        phases,
        pressures,
        temperatures,
        retry_failed,
        listing,
    ):
        chosen = [word for word, given in (("quick", quick), ("full", full)) if given]
        if len(chosen) + bool(recipe) > 1:
            raise click.UsageError("One of --quick, --full and --recipe.")
        _run(
            name,
            output,
            recipe or (chosen or ["standard"])[0],
            model,
            workers,
            phase_ii,
            {
                "patterns": points,
                "phases": phases,
                "pressures": pressures,
                "temperatures": temperatures,
            },
            retry_failed,
            listing,
        )

    command.__doc__ = TARGETS[name]
    for option in reversed(_OPTIONS):
        command = option(command)
    # Of the help, click would show what is before the first full stop: "Fig."
    short = TARGETS[name].replace("Fig. ", "Figure ").rstrip(".")
    return reproduce.command(name, cls=Noted, short_help=short)(command)


_OPTIONS = (
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="Folder of the reproduction; reproduction-RECIPE by default.",
    ),
    click.option("--quick", is_flag=True, help="128 atoms, 1.5 + 2.5 ps: minutes."),
    click.option(
        "--full",
        is_flag=True,
        help="The paper's own: 2,304 atoms, 50 + 200 ps. [standard: 1,152, 10 + 40 ps]",
    ),
    click.option(
        "--recipe",
        type=click.Path(path_type=Path),
        help="TOML file with the keys of ase_hmlp.reproduce.recipe.Recipe.",
    ),
    click.option("--model", default="h2-pbe", show_default=True, help="Shipped model or a file."),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        help="Runs side by side, a thread each.",
    ),
    click.option(
        "--phase-ii",
        multiple=True,
        help="Crystal that Phase II is, or cooled; repeatable; the recipe's by default.",
    ),
    click.option(
        "--points", multiple=True, help="Only points of this name or pattern; repeatable."
    ),
    click.option("--phase", "phases", multiple=True, help="Only this phase; repeatable."),
    click.option(
        "--pressure", "pressures", type=float, multiple=True, help="Only this, GPa; repeatable."
    ),
    click.option(
        "--temperature", "temperatures", type=float, multiple=True, help="Only this, K; repeatable."
    ),
    click.option("--retry-failed", is_flag=True, help="Try again the points that failed."),
    click.option("--list", "listing", is_flag=True, help="Say how far the points are; run none."),
)


def _run(name, output, recipe, model, workers, phase_ii, chosen, retry_failed, listing):
    from rich.console import Console

    from ase_hmlp.model_io import load_model
    from ase_hmlp.reproduce.folder import Reproduction, select
    from ase_hmlp.reproduce.recipe import find_recipe, with_phase_ii
    from ase_hmlp.reproduce.targets import TARGETS as KNOWN
    from ase_hmlp.simulate.sweep_progress import SweepProgress

    recipe = find_recipe(recipe)
    asked = with_phase_ii(recipe, phase_ii)
    load_model(model)  # refused before a folder is made
    folder = output or Path(f"reproduction-{recipe.name}")
    target = KNOWN[name]
    if listing:
        made = Reproduction.peek(folder, recipe, model)
        wanted = select(target.wanted(asked, made.model), **chosen)
        _print_states(output_console(), made, wanted)
        return
    select(target.wanted(asked, model), **chosen)
    command = given_command()
    made = Reproduction.begin(folder, recipe, model, command)
    wanted = select(target.wanted(asked, made.model), **chosen)
    errors = Console(stderr=True)
    with SweepProgress(errors) as progress:
        problems = made.run(wanted, workers, retry_failed, progress)
    for problem in problems:
        errors.print(problem, markup=False, soft_wrap=True)
    _report(made, [name])


@reproduce.command("report")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("targets", nargs=-1, type=click.Choice(list(TARGETS)))
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="For what is not measured yet.",
)
def report(folder, targets, workers):
    """Make tables and pictures from whatever points of FOLDER are finished.

    Of TARGETS, or of all that have one finished point.
    """
    from rich.console import Console

    from ase_hmlp.errors import TooFewFramesError
    from ase_hmlp.reproduce.folder import Reproduction
    from ase_hmlp.reproduce.recipe import all_phase_ii
    from ase_hmlp.reproduce.targets import TARGETS as KNOWN

    made = Reproduction.open(folder)
    recipe = all_phase_ii(made.recipe)
    ready = []
    for name in targets or TARGETS:
        wanted = [w for w in KNOWN[name].wanted(recipe, made.model) if made.finished(w.point)]
        if not wanted and not targets:
            continue
        for problem in made.measure(wanted, workers):
            Console(stderr=True).print(problem, markup=False, soft_wrap=True)
        ready.append(name)
    if not ready:
        raise TooFewFramesError(f"No point in {folder} is finished: there is nothing to report.")
    _report(made, ready)


def _report(made, names) -> None:
    from ase_hmlp.reproduce.targets import TARGETS as KNOWN

    for name in names:
        found = KNOWN[name].report(made)
        paths = found.save(made.folder)
        click.echo(found.text())
        click.echo(f"Written: {', '.join(map(str, paths))}")


def _print_states(console, made, wanted) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("point", "measured", "status", "steps", "of"):
        left = name in ("point", "measured", "status")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for w in wanted:
        state = made.state(w.point)
        table.add_row(
            w.point.name,
            ", ".join(w.measurements),
            state.status,
            f"{state.steps}",
            f"{state.all_steps}",
        )
    console.print(table)


for _name in TARGETS:
    _target(_name)
