"""The potential again, slow and obvious: NumPy, brute force over images, no tables.

Written from design.md section 2, the equations of Zong, Wiebe and Ackland (2020) and the
docstrings of the kernel header, sharing nothing with the package but the specifications.
"""

from itertools import product

import numpy as np
from numpy.polynomial import Polynomial
from numpy.polynomial.legendre import Legendre

# ---------------------------------------------------------------- images


def images(cell, pbc, points, cutoff):
    """Integer shifts (s, 3) that hold every image within `cutoff` of any point, and more."""
    fractional = np.linalg.solve(cell.T, points.T).T
    volume = abs(np.linalg.det(cell))
    ranges = []
    for c in range(3):
        height = volume / np.linalg.norm(np.cross(cell[c - 2], cell[c - 1]))
        reach = int(np.ceil(cutoff / height + np.ptp(fractional[:, c]))) if pbc[c] else 0
        ranges.append(range(-reach, reach + 1))
    return np.array(list(product(*ranges)), dtype=int)


def neighbours(points, cell, pbc, cutoff):
    """All (i, j, shift, vector) with 0 < |vector| < cutoff or an image of i, in order."""
    shifts = images(cell, pbc, points, cutoff)
    offsets = shifts @ cell
    found = []
    for i, j in product(range(len(points)), repeat=2):
        vectors = points[j] + offsets - points[i]
        near = (vectors**2).sum(axis=1) < cutoff**2
        if i == j:
            near &= (shifts != 0).any(axis=1)
        found += [(i, j, tuple(map(int, shifts[s])), vectors[s]) for s in np.flatnonzero(near)]
    return found


def shortest_image(positions, cell, pbc, a, b):
    """Shift and vector of the image of atom b closest to atom a."""
    shifts = images(cell, pbc, positions[[a, b]], 2.0)
    vectors = positions[b] + shifts @ cell - positions[a]
    best = np.argmin((vectors**2).sum(axis=1))
    return tuple(map(int, shifts[best])), vectors[best]


# ---------------------------------------------------------------- radial functions


def cutoff_function(r, rc):
    """(1 - (r/rc)^2)^3 inside the cutoff."""
    r = np.asarray(r, dtype=float)
    return np.where(r < rc, 1.0 - (r / rc) ** 2, 0.0) ** 3


#: The quintic smoothstep, 0 to 1 with vanishing first and second derivatives at both ends.
SMOOTHSTEP = Polynomial([0, 0, 0, 10, -15, 6])


def frozen(r, inner, outer):
    """r beyond outer; below, r less the integral of 1 - (its slope, the smoothstep)."""
    r = np.asarray(r, dtype=float)
    if outer <= inner:
        return r
    t = np.clip((r - inner) / (outer - inner), 0.0, 1.0)
    integral = SMOOTHSTEP.integ()
    return np.where(r >= outer, r, outer - (outer - inner) * (integral(1.0) - integral(t)))


def radial(function, basis, r, cut=True):
    """One radial function of a basis, with or without the cutoff function."""
    s = frozen(r, basis.inner, basis.outer)
    if function.kind == "gaussian":
        value = np.exp(-((s / function.a) ** 2))
    elif function.kind == "damped_sine":
        value = np.sin(function.a * s) * np.exp(-s / function.b)
    elif function.kind == "quadrupole":
        value = s**-5.0
    elif function.kind == "born_mayer":
        value = np.exp(-np.asarray(r) / function.a)
    elif function.kind == "shell":
        value = np.exp(-(((s - function.a) / function.b) ** 2))
    elif function.kind == "wendland":
        value = wendland(s, function.a)
    else:
        raise ValueError(function.kind)
    return value * cutoff_function(r, basis.cutoff) if cut else value


def wendland(r, support):
    """Positive definite in three dimensions and twice differentiable; 0 from `support` on."""
    x = np.minimum(r / support, 1.0)
    return (1 - x) ** 4 * Polynomial([1, 4])(x)


def radial_channels(basis, r, cut=True):
    """All functions at distances r (n): (functions, n)."""
    r = np.atleast_1d(r)
    return np.array([radial(function, basis, r, cut) for function in basis.functions])


# ---------------------------------------------------------------- orientational invariants


def quadrupole_form(ca, cb, c):
    """Equation 7 of Zong, Wiebe and Ackland."""
    return 35 * ca**2 * cb**2 - 5 * ca**2 - 5 * cb**2 + 2 * c**2 - 20 * ca * cb * c + 1


def angular(a, b, r):
    """The eight invariants of unit vectors a, b and r, by name."""
    ca, cb, c = a @ r, b @ r, a @ b
    p2, p4 = Legendre.basis(2), Legendre.basis(4)
    # S222 from the molecules' traceless quadrupole tensors: r.(A B).r less a third of its trace.
    qa, qb = np.outer(a, a) - np.eye(3) / 3, np.outer(b, b) - np.eye(3) / 3
    return {
        "S000": 1.0,
        "S202": p2(ca),
        "S022": p2(cb),
        "S220": p2(c),
        "S222": 9 * (r @ qa @ qb @ r - np.trace(qa @ qb) / 3),
        "S224": quadrupole_form(ca, cb, c),
        "S404": p4(ca),
        "S044": p4(cb),
    }


def point_charge_quadrupoles(a, b, r, size=0.01):
    """R^5 times the Coulomb energy of two linear quadrupoles made of point charges.

    Charges (1, -2, 1) / size^2 at (-size, 0, size) along each axis, at unit separation r.
    """
    charges = np.array([1.0, -2.0, 1.0]) / size**2
    steps = size * np.array([-1.0, 0.0, 1.0])
    energy = 0.0
    for qa, xa in zip(charges, steps, strict=True):
        for qb, xb in zip(charges, steps, strict=True):
            energy += qa * qb / np.linalg.norm(r + xb * b - xa * a)
    return energy


# ---------------------------------------------------------------- fingerprints


def bonds(structure):
    """Shift and vector of every bond."""
    s = structure
    return [shortest_image(s.positions, s.cell, s.pbc, a, b) for a, b in s.molecules]


def molecules_of(structure):
    """Centres (m, 3), unit axes (m, 3) and bond lengths (m)."""
    vectors = np.array([d for _, d in bonds(structure)])
    lengths = np.linalg.norm(vectors, axis=1)
    centres = structure.positions[structure.molecules[:, 0]] + vectors / 2
    return centres, vectors / lengths[:, None], lengths


def held_stretch(held, length):
    """Bond length less r0, smoothly brought to its ends."""
    up = frozen(length, held.low, held.low + held.margin)
    return -frozen(-up, -held.high, -(held.high - held.margin)) - held.r0


def pair_fingerprints(level, held, structure):
    """Radial fingerprints of each molecule (m, 4 stretch terms, functions), half of each pair."""
    s = structure
    centres, axes, lengths = molecules_of(s)
    stretch = held_stretch(held, lengths)
    v = np.zeros((len(axes), 4, len(level.basis.functions)))
    for i, j, _, d in neighbours(centres, s.cell, s.pbc, level.basis.cutoff):
        both = (
            1.0,
            stretch[i] + stretch[j],
            stretch[i] * stretch[j],
            stretch[i] ** 2 + stretch[j] ** 2,
        )
        r = [
            np.linalg.norm(d + b * lengths[j] * axes[j] - a * lengths[i] * axes[i])
            for a in (-0.5, 0.5)
            for b in (-0.5, 0.5)
        ]
        f = radial_channels(level.basis, np.array(r), cut=False).sum(axis=1)
        v[i] += 0.5 * np.outer(both, f) * cutoff_function(np.linalg.norm(d), level.basis.cutoff)
    return v


def orientation_fingerprints(basis, structure):
    """Orientation fingerprints (m, 6, functions), half of each pair."""
    s = structure
    centres, axes, _ = molecules_of(s)
    w = np.zeros((len(axes), 6, len(basis.functions)))
    for i, j, _, d in neighbours(centres, s.cell, s.pbc, basis.cutoff):
        r = np.linalg.norm(d)
        S = angular(axes[i], axes[j], d / r)
        both = (
            S["S000"],
            S["S202"] + S["S022"],
            S["S220"],
            S["S222"],
            S["S224"],
            S["S404"] + S["S044"],
        )
        w[i] += 0.5 * np.outer(both, radial_channels(basis, r)[:, 0])
    return w


def overlap_functions(overlap, r, within):
    """Three Gaussians and the overlap of two atoms' orbitals at distances r: (..., 4)."""
    s = r if within else frozen(r, *overlap.freeze)
    gaussians = [np.exp(-((s / width) ** 2)) for width in overlap.widths]
    return np.stack([*gaussians, wendland(s, overlap.support)], axis=-1)


def cluster(overlap, held, structure, m, alone=False):
    """Overlap matrix (n, n) of molecule m and its neighbours, itself first, and vectors (n, 16).

    Vectors are how orbitals of m overlap with all bonding ones: 1 at m itself, three of its
    bonding orbital, three of its antibonding one, and the components of three p orbitals.  Bonds
    are as long as the stretch says.
    """
    s = structure
    centres, axes, lengths = molecules_of(s)
    lengths = held.r0 + held_stretch(held, lengths)
    members = [(m, np.zeros(3))]
    if not alone:
        found = neighbours(centres, s.cell, s.pbc, overlap.reach)
        members += [(j, d) for i, j, _, d in found if i == m]
    weights, ends = [], []
    for j, d in members:
        x = max(0.0, (d @ d - overlap.inner**2) / (overlap.reach**2 - overlap.inner**2))
        weights.append((1 - x**3) ** 3)
        half = lengths[j] * axes[j] / 2
        ends.append([d - half, d + half])
    matrix, vectors = [], []
    for a, atoms in enumerate(ends):
        row = []
        for c, others in enumerate(ends):
            total = sum(
                overlap_functions(overlap, np.linalg.norm(p - q), within=a == c)[3]
                for p in atoms
                for q in others
            )
            row.append(total * (1 + overlap.ridge if a == c else weights[a] * weights[c]))
        even, odd, polar = np.zeros(3), np.zeros(3), np.zeros((3, 3))
        for p in atoms:
            for q, sign in zip(ends[0], (-1, 1), strict=True):
                d = q - p
                r = np.linalg.norm(d)
                g = overlap_functions(overlap, r, within=a == 0)[:3]
                even += g
                odd += sign * g
                polar += np.outer(g, d / r) if r > 0 else 0.0
        matrix.append(row)
        vectors.append([a == 0, *(weights[a] * np.hstack([even, odd, polar.ravel()]))])
    return np.array(matrix), np.array(vectors)


def quadratic_forms(products, u):
    """The 28 forms of a molecule along u from the products (16, 16) of its vectors."""
    three, four = np.triu_indices(3), np.triu_indices(4)
    polar = products[7:, 7:].reshape(3, 3, 3, 3)
    return np.hstack(
        [
            products[:4, :4][four],
            products[4:7, 4:7][three],
            np.einsum("kxlx->kl", polar)[three],
            np.einsum("kxly,x,y->kl", polar, u, u)[three],
        ]
    )


def overlap_forms(overlap, held, structure):
    """Forms (m, 56) of every molecule among its neighbours, less those it has alone.

    With the inverse of the overlap matrix, and with its square.
    """
    out = []
    for m, u in enumerate(molecules_of(structure)[1]):
        found = []
        for alone in (False, True):
            matrix, vectors = cluster(overlap, held, structure, m, alone)
            inverse = np.linalg.inv(matrix)
            found.append(
                [
                    quadratic_forms(vectors.T @ power @ vectors, u)
                    for power in (inverse, inverse @ inverse)
                ]
            )
        out.append(np.ravel(found[0]) - np.ravel(found[1]))
    return np.array(out)


def environment_fingerprints(basis, held, structure, overlap=None):
    """Fingerprints of each molecule's surroundings (m, 265), and how many neighbours."""
    s = structure
    centres, axes, lengths = molecules_of(s)
    stretch = held_stretch(held, lengths)
    out, count = [], np.zeros(len(axes), dtype=int)
    forms = np.zeros((len(axes), 56)) if overlap is None else overlap_forms(overlap, held, s)
    found = neighbours(centres, s.cell, s.pbc, basis.cutoff)
    for a, u in enumerate(axes):
        density, vector = np.zeros(4), np.zeros((3, 4, 3))
        tensor, aligned, shells = np.zeros((3, 4, 3, 3)), np.zeros(5), np.zeros(8)
        stretched = np.zeros(4)
        for i, j, _, d in found:
            if i != a:
                continue
            count[a] += 1
            r = np.linalg.norm(d)
            h, g, k = np.split(radial_channels(basis, r)[:, 0], [4, 5])
            n = d / r
            density += h
            shells += k
            stretched += h * stretch[j]
            b, c = axes[j], axes[j] @ n
            for kind, v in enumerate((n, c**2 * n, c * b)):
                vector[kind] += h[:, None] * v
            crossed = c * (np.outer(n, b) + np.outer(b, n)) / 2
            for kind, q in enumerate((np.outer(n, n), np.outer(b, b), crossed)):
                tensor[kind] += h[:, None, None] * (q - np.trace(q) * np.eye(3) / 3)
            S = angular(u, axes[j], n)
            aligned += g * [S[name] for name in ("S022", "S220", "S222", "S224", "S044")]
        vectors, tensors = vector.reshape(12, 3), tensor.reshape(12, 3, 3)
        turned, along = tensors @ u, vector[0] @ u
        upper, all_kinds = np.triu_indices(4), np.triu_indices(12)
        out.append(
            [
                *density,
                *(1.5 * turned @ u),
                *aligned,
                *shells,
                *stretched,
                *forms[a],
                *(vectors @ vectors.T)[all_kinds],
                *np.einsum("nxy,oxy->no", tensors, tensors)[all_kinds],
                *np.outer(along, along)[upper],
                *(turned[:4] @ turned[:4].T)[upper],
            ]
        )
    return np.array(out), count


# ---------------------------------------------------------------- energies


def regressor_energy(g, v, r):
    """Energy of one molecule with fingerprints v and bond length r."""
    energy = g.linear @ v + (r - g.r0) * (g.linear_stretch @ v)
    y = g.transform @ v
    for y_s, r_s, alpha in zip(g.representatives, g.rep_bond, g.alpha, strict=True):
        k = np.exp(-((y - y_s) @ (y - y_s)) / 2) - np.exp(-(y @ y + y_s @ y_s) / 2)
        if g.stretch_width > 0:
            k *= np.exp(-(((r - r_s) / g.stretch_width) ** 2) / 2)
        energy += alpha * k
    return energy


def bond_energy(level, r):
    """Energy of a bond of length r: Morse, or a polynomial and beyond it a parabola and a wall."""
    if level.form == "morse":
        depth, a = level.parameters
        return depth * (1 - np.exp(-a * (r - level.r0))) ** 2
    p = Polynomial(level.parameters)
    edge = min(max(r, level.lower), level.upper)
    x = edge - level.r0
    taylor = p(x) + p.deriv(1)(x) * (r - edge) + p.deriv(2)(x) * (r - edge) ** 2 / 2
    return taylor + 100.0 * abs(r - edge) ** 3


def energies(potential, structure):
    """Per-atom energies of a potential (n): molecules give half to each atom."""
    s = structure
    _, _, lengths = molecules_of(s)
    of_molecule = np.array([bond_energy(potential.bond, r) for r in lengths])
    if potential.pair is not None:
        v = pair_fingerprints(potential.pair, potential.stretch, s)
        of_molecule += np.einsum("mck,ck->m", v, potential.pair.coefficients)
    if potential.orientation is not None:
        w = orientation_fingerprints(potential.orientation.basis, s)
        of_molecule += np.einsum("mck,ck->m", w, potential.orientation.coefficients)
    if potential.environment is not None:
        level, held = potential.environment, potential.stretch
        x, _ = environment_fingerprints(level.basis, held, s, level.overlap)
        g = level.regressor
        seen = potential.stretch.r0 + held_stretch(held, lengths)
        of_molecule += [regressor_energy(g, x[m], seen[m]) for m in range(len(lengths))]
    out = np.empty(len(s))
    out[s.molecules] = 0.5 * of_molecule[:, None]
    return out + potential.e0


# ---------------------------------------------------------------- finite differences

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def derivative(f, step):
    """df/dx at 0 by the four-point central difference; truncation step^4/30 f^(5)."""
    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


def position_derivative(f, structure, i, x, step):
    """Derivative of f(structure) with respect to component x of atom i."""

    def moved(h):
        positions = structure.positions.copy()
        positions[i, x] += h
        return f(structure.moved(positions))

    return derivative(moved, step)


def strain_derivative(f, structure, voigt, step):
    """Derivative of f(structure) with respect to a symmetric strain component."""
    x, y = VOIGT[voigt]

    def strained(h):
        strain = np.zeros((3, 3))
        strain[x, y] += h / 2
        strain[y, x] += h / 2
        return f(structure.deformed(np.eye(3) + strain))

    return derivative(strained, step)
