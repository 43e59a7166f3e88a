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
    help="Mean mass of an atom, u; by default what the log's density says.",
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
    help="Runs closer than this are on one isobar, GPa.",
)
@click.option(
    "--same-temperature",
    type=click.FloatRange(min=0.0),
    default=10.0,
    show_default=True,
    help="Runs closer than this are on one isotherm, K.",
)
def eos(runs, output, overwrite, as_json, atoms, mass, settling, same_pressure, same_temperature):
    """Equation of state, thermal expansion, heat capacity from the logs of RUNS.

    RUNS are CSV logs, folders of runs, or of sweeps. Every stretch at one target temperature and
    pressure is a state: heat capacities by fluctuations, and by finite differences along isobars;
    Vinet's equation of state where four states are on one isotherm.
    """
    from ase_hmlp.analysis.equation_of_state import equation_of_state
    from ase_hmlp.analysis.run_logs import log_paths, read_states
    from ase_hmlp.analysis.source import file_sha256

    check_output(output, ["eos"], overwrite)
    logs = [log for run in runs for log in log_paths(run)]
    states = [state for log in logs for state in read_states(log, atoms, mass, settling)]
    result = equation_of_state(states, same_pressure, same_temperature)
    record = {
        "logs": [{"source": str(log), "sha256": file_sha256(log)} for log in logs],
        "settings": {
            "atoms": atoms,
            "mass_u": mass,
            "settling": settling,
            "same_pressure_GPa": same_pressure,
            "same_temperature_K": same_temperature,
        },
    }
    finish(result.with_inputs(record), output, overwrite, as_json)
