#!/usr/bin/env python3
"""Label frames on a second mesh of k-points and keep the mean of both.

A mesh of spacing 0.08 1/Å leaves up to 3 meV/atom and 30 meV/Å in frames of 50 to 200 GPa
(`measure_meshes.py`). On the same mesh shifted by half a division the leading part of that has the
other sign, so that the mean of both labels is nearly free of it.

Frames of a packed file that were labelled on one mesh, unshifted, are labelled on the shifted one:
those that are tested on first, then the densest, for there it matters most. What is finished goes
into the packed file: energies, forces and stress become the mean, ``label`` says so, and
``info["mesh_error"]`` is half the difference of the energies, eV/atom. Frames of large cells
(shifted from the start), of pairs and of the isolated molecule stay as they are.

The relaxations have meshes of 0.06 1/Å, cells of any size: ``--kspacing 0.06``, after every run of
generate_relaxations.py, which writes labels on one mesh. Run the script again after a kill and it
goes on with what is missing; what is in the packed file already is never asked for again.

Example
-------
::

    nice python complete_meshes.py h2-pbe-dynamics.extxyz.xz --shifted shifted.extxyz
"""

import argparse
import re
import signal
from pathlib import Path

from ase.calculators.singlepoint import SinglePointCalculator

from ase_hmlp.training.data.generate_dynamics import write_packed
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label import RunSection, label_frames, structure_digest
from ase_hmlp.training.label_calculators import (
    BOTH_MESHES,
    EspressoSection,
    k_mesh,
    mesh_error,
)

#: The thinnest frame that has its mesh completed unless told otherwise, Å³/atom: at 3.2 a single
#: mesh is wrong by 0.3 meV/atom.
BELOW = 3.5

#: Families in which molecules are alone in a box.
ALONE = ("molecule", "dimer", "pair")


def mesh_of(atoms):
    """Divisions a frame was labelled with, as its label says or by the recipe.

    Parameters
    ----------
    atoms : ase.Atoms

    Returns
    -------
    str
        As in labels: ``3x4x3``.
    """
    said = re.search(r"k-points ([\dx]+|gamma)", atoms.info.get("label", ""))
    if said:
        return said[1]
    section = EspressoSection()
    spacing = section.kspacing if len(atoms) > section.small_cell else section.small_kspacing
    mesh = k_mesh(atoms, spacing, section.vacuum)
    return "gamma" if mesh is None else "x".join(map(str, mesh))


def on_one_mesh(atoms):
    """Whether a frame was labelled on one mesh of the unit cell, unshifted."""
    label = atoms.info.get("label", "")
    one = " shifted" not in label and "k-points gamma" not in label
    return one and atoms.info["group"] not in ALONE and bool(atoms.pbc.all())


def missing(frames, below):
    """Frames to label, in order.

    Parameters
    ----------
    frames : list of ase.Atoms
    below : float, Å³/atom
    """

    def volume(atoms):
        return atoms.get_volume() / len(atoms)

    wanted = [a for a in frames if on_one_mesh(a) and volume(a) < below]
    return sorted(wanted, key=lambda a: (a.info.get("split") != "test", volume(a)))


def completed(atoms, shifted):
    """A frame with the mean of its labels and those on the shifted mesh.

    Parameters
    ----------
    atoms, shifted : ase.Atoms
        With energy, forces and stress.

    Returns
    -------
    ase.Atoms

    Raises
    ------
    ValueError
        If the meshes have other divisions.
    """
    mesh, other = mesh_of(atoms), mesh_of(shifted)
    if mesh != other or f"k-points {mesh} shifted" not in shifted.info["label"]:
        raise ValueError(f"{atoms.info['source']}: labelled on {mesh}, shifted on {other}")
    mean = atoms.copy()
    energies = atoms.get_potential_energy(), shifted.get_potential_energy()
    mean.calc = SinglePointCalculator(
        mean,
        energy=sum(energies) / 2,
        forces=(atoms.get_forces() + shifted.get_forces()) / 2,
        stress=(atoms.get_stress() + shifted.get_stress()) / 2,
    )
    mean.info["label"] = shifted.info["label"].replace(
        f"k-points {mesh} shifted", f"k-points {mesh}{BOTH_MESHES}"
    )
    mean.info["mesh_error"] = mesh_error(*energies, len(atoms))
    seconds = [a.info["cpu_seconds"] for a in (atoms, shifted) if "cpu_seconds" in a.info]
    if len(seconds) == 2:
        mean.info["cpu_seconds"] = round(sum(seconds), 2)
    return mean


def complete(path, shifted):
    """Put what is labelled on shifted meshes into a packed file.

    Parameters
    ----------
    path, shifted : pathlib.Path

    Returns
    -------
    int
        Frames that are now means of both meshes.
    """
    found = {structure_digest(a): a for a in iterate_structures(shifted)}
    frames, done = [], 0
    for atoms in iterate_structures(path):
        other = found.get(structure_digest(atoms)) if on_one_mesh(atoms) else None
        if other is not None:
            try:
                atoms = completed(atoms, other)
            except ValueError as reason:
                print(reason)
        done += BOTH_MESHES in atoms.info.get("label", "")
        frames.append(atoms)
    write_packed(frames, path)
    return done


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("frames", type=Path, help="packed file to complete")
    parser.add_argument("--shifted", type=Path, required=True, help="labels on shifted meshes")
    parser.add_argument("--kspacing", type=float, help="1/Å, for all cells; else the recipe's")
    parser.add_argument("--below", type=float, default=BELOW, help="volume, Å³/atom")
    parser.add_argument("--workers", type=int, default=2, help="simultaneous calculations")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--pack", action="store_true", help="only put in what is labelled")
    arguments = parser.parse_args()
    # As on Ctrl-C, so that the calculations in flight end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not arguments.pack:
        labeller = EspressoSection(
            command=arguments.command,
            pseudo_dir=str(arguments.pseudo_dir.resolve()),
            shifted_from=1,
            **({"kspacing": arguments.kspacing, "small_cell": 0} if arguments.kspacing else {}),
        ).labeller()
        wanted = missing(list(iterate_structures(arguments.frames)), arguments.below)
        print(f"{len(wanted)} frames on one mesh", flush=True)
        run = RunSection(workers=arguments.workers)
        label_frames(wanted, arguments.shifted, labeller, run, retry_failed=True)
    done = complete(arguments.frames, arguments.shifted)
    print(f"{done} frames of {arguments.frames} are means of both meshes")


if __name__ == "__main__":
    main()
