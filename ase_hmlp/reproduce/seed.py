"""What the seed paper gives in numbers: Table 1, and statements of its text.

H. Zong, H. Wiebe and G. J. Ackland, Nature Communications 11, 5014 (2020). Classical nuclei, PBE.
"""

from __future__ import annotations

import math

CITATION = (
    "H. Zong, H. Wiebe, G. J. Ackland, Understanding high pressure molecular hydrogen with a "
    "hierarchical machine-learned potential, Nat. Commun. 11, 5014 (2020)"
)

#: Pressures of Table 1, GPa.
PRESSURES = (20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 140.0)

#: Table 1: <EQQ> in meV/molecule at `PRESSURES`; None where it has no entry. Its size is that of
#: equations 6 and 7 with every pair counted from both ends, divided by the number of molecules.
TABLE_1: dict[str, tuple[float | None, ...]] = {
    "liquid": (-5.5897, -7.3219, -8.9744, -10.9062, -11.7181, -11.8199, -11.8821),
    "solid": (-6.2366, -7.7636, -9.8332, -13.6786, -15.9932, -17.7660, -18.5865),
    "phase I": (-15.5999, -25.4964, -35.9825, -44.4900, -53.0947, -59.5902, -65.5554),
    "phase II": (None, -43.4700, -52.9075, -65.9290, -76.0736, -91.3044, -103.4814),
}

#: Temperatures of Phase I and II in Table 1, K.
PHASE_I, PHASE_II = 150.0, 50.0

#: Temperature of the liquid in Fig. 2b and 3b, K.
LIQUID = 1000.0

#: Pressure (GPa) above which the vibron softens, "about 54 GPa".
TURNOVER = 54.0

#: The E2g phonon (1/cm) at pressures (GPa) the text names.
E2G = ((0.0, 36.0), (250.0, 1100.0))

#: Separation (Å) below which X is lower than T in energy, Fig. 5b.
CROSSING = 2.25

#: O below which the crystal is Phase I, Fig. 6.
DISORDERED = 0.1

#: The Phase I-II boundary of Fig. 6 is within these temperatures (K) at these pressures (GPa).
TRANSITIONS, TRANSITION_PRESSURES = (30.0, 150.0), (20.0, 160.0)

#: Above this pressure (GPa) the share of fp_EQQ is "significantly higher" in the solid, Fig. 5a.
FP_EQQ_ABOVE = 70.0

#: Highest melting temperature: "around 900 K and 90 GPa".
MELTING_MAXIMUM = 90.0


def melting_temperature(pressure: float) -> float:
    """Melting temperature of the seed's classical hydrogen, to 10 K.

    The paper shows it in Fig. 1 only; in words it has a maximum "at around 900 K and 90 GPa". This
    is the form that fits measurements at low pressure, ``14.025 K (1 + P/a)^b exp(-c P)`` with
    a = 0.0286 GPa and b = 0.589 (Datchi, Loubeyre and LeToullec, Phys. Rev. B 61, 6535, 2000), with
    the one change that c puts the maximum at 90 GPa, ``c = b / (90 GPa + a)``. It is 894 K there.

    Parameters
    ----------
    pressure : float, GPa

    Returns
    -------
    float, K
    """
    a, b = 0.0286, 0.589
    c = b / (MELTING_MAXIMUM + a)
    return float(round(14.025 * (1.0 + pressure / a) ** b * math.exp(-c * pressure), -1))
