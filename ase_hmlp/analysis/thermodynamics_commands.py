"""Commands of the analyses of thermodynamics; see `ase_hmlp.analysis.command_group`."""

from __future__ import annotations

from pathlib import Path

import click

from ase_hmlp.analysis.command_group import analyse, analysis, check_output, finish, output_options


@analysis("thermo")
@click.option("--pressure", type=float, help="Of the barostat, GPa; the mean if not given.")
@click.option(
    "--ensemble",
    type=click.Choice(["auto", "nve", "nvt", "npt"]),
    default="auto",
    show_default=True,
    help="Whose fluctuations they are; auto: what varies decides.",
)
def thermo(pressure, ensemble):
    """Density, energy, enthalpy; heat capacity and compressibility by fluctuations.

    Needs velocities and stored energies; for the pressure, stored stresses.
    """
    from ase_hmlp.analysis.thermodynamics import Thermodynamics

    return Thermodynamics(pressure, ensemble)


@analyse.command("eos")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_options
@click.option("--atoms", type=click.IntRange(min=1), help="Number of atoms, where logs do not say.")
@click.option(
    "--mass",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Mean mass of an atom, u; by default what trajectories or the logs' densities say.",
)
@click.option(
    "--settling",
    type=click.FloatRange(min=0.0, max=1.0, max_open=True),
    default=0.25,
    show_default=True,
    help="Share of each stretch at one state that is left out.",
)
@click.option(
    "--same-pressure",
    type=click.FloatRange(min=0.0),
    default=1.0,
    show_default=True,
    help="Most that runs on one isobar may differ by, GPa, where no log says what was asked for.",
)
@click.option(
    "--same-temperature",
    type=click.FloatRange(min=0.0),
    default=10.0,
    show_default=True,
    help="Most that runs on one isotherm may differ by, K, where no log says what was asked for.",
)
def eos(runs, output, overwrite, as_json, atoms, mass, settling, same_pressure, same_temperature):
    """Equation of state, thermal expansion, heat capacity from several RUNS.

    RUNS are folders of runs or of sweeps, without the runs that failed or have not ended; CSV logs,
    thermo.csv among them; or trajectories with velocities, energies and stresses. Every stretch of
    a log at one target temperature and pressure is a state, and so is a trajectory: heat capacities
    by fluctuations, and by finite differences along isobars of runs with a barostat and isochores
    of others; Vinet's equation of state where four pressures are on one isotherm. Phases are kept
    apart, as sweeps and runs name them.
    """
    from dataclasses import replace

    from ase_hmlp.analysis.equation_of_state import equation_of_state
    from ase_hmlp.analysis.run_logs import read_runs
    from ase_hmlp.analysis.source import file_sha256

    check_output(output, ["eos"], overwrite)
    read = read_runs(runs, atoms, mass, settling)
    result = equation_of_state(read.states, same_pressure, same_temperature)
    result = replace(result, notes=(*result.notes, *read.notes))
    record = {
        kind: [{"source": str(path), "sha256": file_sha256(path)} for path in paths]
        for kind, paths in (("logs", read.logs), ("trajectories", read.trajectories))
    }
    settings = {
        "atoms": atoms,
        "mass_u": mass,
        "settling": settling,
        "same_pressure_GPa": same_pressure,
        "same_temperature_K": same_temperature,
    }
    finish(result.with_inputs(record | {"settings": settings}), output, overwrite, as_json)
