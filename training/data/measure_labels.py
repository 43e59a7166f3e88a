#!/usr/bin/env python3
"""Whose errors they are: labels of another code, Quantum ESPRESSO's and a model's of the same.

Of imported frames (`hmlp import`) it takes some of each family at random, labels them by the
project's recipe on both meshes, and prints how far apart the three are: mean absolute differences
of energies (meV/atom; the codes' zeros differ, so the median of what they differ by is taken off)
and forces (meV/Å). Where a model is nearer to Quantum ESPRESSO than the other code is, its errors
against that code's labels are not its own. Run it again after a kill and it goes on.

Example
-------
::

    python measure_labels.py castep/test.extxyz.xz --output castep-relabelled.extxyz
"""

import argparse
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ase_hmlp.model_io import load_model
from ase_hmlp.training.data.generate_dynamics import CALCULATOR
from ase_hmlp.training.evaluate import predict
from ase_hmlp.training.frames import iterate_structures, read_frames
from ase_hmlp.training.label import RunSection, label_frames
from ase_hmlp.training.label_calculators import EspressoSection

SEED = 2029


def sample(frames, each, most):
    """Some frames of each family, drawn at random of those with at most so many atoms.

    Parameters
    ----------
    frames : list of ase.Atoms
    each, most : int

    Returns
    -------
    list of ase.Atoms
        Of the families in turns, so that a run that is cut short has some of each.
    """
    rng = np.random.default_rng(SEED)
    families = defaultdict(list)
    for atoms in frames:
        if len(atoms) <= most:
            families[atoms.info["group"]].append(atoms)
    drawn = [
        [family[n] for n in rng.permutation(len(family))[:each]]
        for _, family in sorted(families.items())
    ]
    return [atoms for turn in zip_longest(*drawn) for atoms in turn if atoms is not None]


def differences(one, other):
    """Mean absolute differences of energies (meV/atom) and forces (meV/Å) of two labels."""
    (one_energy, one_forces), (other_energy, other_forces) = one, other
    energy = one_energy - other_energy
    forces = np.concatenate(one_forces) - np.concatenate(other_forces)
    return 1e3 * np.abs(energy).mean(), 1e3 * np.abs(forces).mean()


def of_frames(frames):
    """Energies per atom and forces of labelled frames."""
    return np.array([f.energy / f.n_atoms for f in frames]), [f.forces for f in frames]


def of_model(model, frames):
    """The same of a model."""
    made = predict(model.potential, frames)
    forces = [made.forces[1][made.frame_of_force == n].reshape(-1, 3) for n in range(len(frames))]
    return made.energy[1], forces


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("frames", type=Path, help="labelled by another code")
    parser.add_argument("--output", type=Path, required=True, help="where the new labels go")
    parser.add_argument("--model", default="h2-pbe")
    parser.add_argument("--each", type=int, default=10, help="frames of a family")
    parser.add_argument("--most", type=int, default=24, help="atoms of a frame")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    section = EspressoSection(
        command=arguments.command,
        pseudo_dir=str(arguments.pseudo_dir.resolve()),
        **CALCULATOR,
    )
    chosen = sample(list(iterate_structures(arguments.frames)), arguments.each, arguments.most)
    run = RunSection(workers=arguments.workers)
    label_frames(chosen, arguments.output, section.labeller(), run)
    theirs = {f.source: f for f in read_frames(arguments.frames)}
    ours = [f for f in read_frames(arguments.output) if f.source in theirs]
    theirs = [theirs[f.source] for f in ours]
    family = np.array([f.group for f in ours])
    labels = {"other": of_frames(theirs), "QE": of_frames(ours)}
    labels["model"] = of_model(load_model(arguments.model), ours)
    zero = np.median(labels["other"][0] - labels["QE"][0])
    labels["other"] = labels["other"][0] - zero, labels["other"][1]
    pairs = (("other", "QE"), ("model", "other"), ("model", "QE"))
    print(f"{'':28s}" + "".join(f"{f'{a} - {b}':>20s}" for a, b in pairs))
    print(f"{'family':20s}  frames" + "    meV/atom   meV/Å" * 3)
    for name in [*sorted(set(family.tolist())), "all"]:
        of_it = np.flatnonzero((family == name) | (name == "all"))
        some = {k: (e[of_it], [f[n] for n in of_it]) for k, (e, f) in labels.items()}
        found = [differences(some[a], some[b]) for a, b in pairs]
        print(f"{name:20s}  {len(of_it):6d}" + "".join(f"{e:12.2f}{f:8.1f}" for e, f in found))


if __name__ == "__main__":
    main()
