"""Commands of the analyses of motion; see `ase_hmlp.analysis.command_group`."""

from __future__ import annotations

import click

from ase_hmlp.analysis.command_group import analysis

_resolution = click.option(
    "--resolution",
    type=click.FloatRange(min=0.0, min_open=True),
    default=20.0,
    show_default=True,
    help="1/cm; coarser spectra have smaller errors.",
)


@analysis("vibron")
@_resolution
@click.option(
    "--range",
    "between",
    type=click.FloatRange(min=0.0),
    nargs=2,
    default=(500.0, 1e5),
    help="1/cm, where the peaks are sought; all above 500 by default.",
)
@click.option(
    "--integrator-step",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Time step of the run, or of its bonds if that is shorter, fs: corrects peaks for it. "
    "Trajectories of hmlp run, and of ASE's own integrators, say it.",
)
def vibron(resolution, between, integrator_step):
    """Vibron spectra, of all molecules and in phase (Raman): peaks, widths."""
    from ase_hmlp.analysis.vibron import Vibron

    return Vibron(resolution, *between, integrator_step=integrator_step)


@analysis("e2g")
@_resolution
@click.option(
    "--range",
    "between",
    type=click.FloatRange(min=0.0),
    nargs=2,
    help="1/cm, where the peak is sought.",
)
def e2g(resolution, between):
    """E2g phonon of hcp: layers that shear against each other, by projection of velocities."""
    from ase_hmlp.analysis.e2g import E2gPhonon

    return E2gPhonon(resolution, *between) if between else E2gPhonon(resolution)


@analysis("rotation")
@click.option(
    "--longest",
    type=click.FloatRange(min=0.0, min_open=True),
    default=1000.0,
    show_default=True,
    help="Longest lag, fs.",
)
def rotation(longest):
    """Autocorrelation of angular momentum: free rotors, hindered or librating."""
    from ase_hmlp.analysis.rotation import Rotation

    return Rotation(longest)


@analysis("diffusion")
def diffusion():
    """Mean-squared displacement of molecules, diffusion; solid or liquid."""
    from ase_hmlp.analysis.diffusion import Diffusion

    return Diffusion()
