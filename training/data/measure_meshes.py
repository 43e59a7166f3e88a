#!/usr/bin/env python3
"""How far labels are from those on a fine mesh of k-points: one mesh, the shifted one, their mean.

Takes small labelled frames of several densities, labels each on its mesh, on the shifted one and on
one of 0.04 1/Å, and prints what the first two and their mean differ by from the last: energy
(meV/atom), forces (mean absolute, meV/Å) and pressure (GPa).

Example
-------
::

    python measure_meshes.py h2-pbe-dynamics.extxyz.xz
"""

import numpy as np

from ase_hmlp.training.data.measure_pulay import label, pressure, read_command_line

#: Å³/atom; of each, a frame of every family that has one within 5 %.
VOLUMES = (1.75, 2.0, 2.35, 3.2)
FAMILIES = ("phase-I", "phase-II")
FINE = 0.04  # 1/Å, without 2 pi


def chosen(frames):
    """Frames of 9 to 16 atoms nearest to each volume, one of each family."""
    found = []
    for volume in VOLUMES:
        for family in FAMILIES:
            near = [
                (abs(np.log(a.get_volume() / len(a) / volume)), n)
                for n, a in enumerate(frames)
                if a.info["group"] == family and 8 < len(a) <= 16
            ]
            if near and min(near)[0] < 0.05:
                found.append(frames[min(near)[1]])
    return found


def numbers(atoms, settings, **keys):
    """Energy (meV/atom) and pressure (GPa), and forces (n, 3) in eV/Å, on one mesh."""
    labels = label(atoms, settings, both_meshes=False, **keys)
    return np.array([1e3 * labels.energy / len(atoms), pressure(labels.stress)]), labels.forces


def main():
    """Run the command line."""
    frames, settings = read_command_line(__doc__.split("\n")[0])
    everything = []
    print("          of one mesh        of the shifted    of their mean")
    print("Å³/atom   " + "meV meV/Å  GPa    " * 3)
    for atoms in chosen(frames):
        fine, fine_forces = numbers(atoms, settings, kspacing=FINE)
        (one, one_forces), (other, other_forces) = (
            numbers(atoms, settings, shifted_from=n) for n in (0, 1)
        )
        mean = ((one + other) / 2, (one_forces + other_forces) / 2)
        row = []
        for values, forces in ((one, one_forces), (other, other_forces), mean):
            energy, gpa = values - fine
            row += [energy, 1e3 * np.abs(forces - fine_forces).mean(), gpa]
        everything.append(row)
        text = "".join(f"{e:6.2f} {f:5.1f} {p:5.2f}" for e, f, p in np.reshape(row, (3, 3)))
        volume = atoms.get_volume() / len(atoms)
        print(f"{volume:7.2f} {text}   {atoms.info['source']}", flush=True)
    means = np.abs(everything).mean(axis=0).reshape(3, 3)
    print("  mean  " + "".join(f"{e:6.2f} {f:5.1f} {p:5.2f}" for e, f, p in means))


if __name__ == "__main__":
    main()
