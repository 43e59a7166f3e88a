"""Power spectra, lines in them, and what the integrator does to a frequency."""

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st
from motions import LIGHT, CoupledBonds, run, wavenumber
from scipy.signal import lfilter
from strategies import seeds

from ase_hmlp.analysis.segments import Segments
from ase_hmlp.analysis.spectra import (
    PowerSpectrum,
    find_line,
    require_sampling,
    verlet_corrected,
    verlet_seen,
)
from ase_hmlp.errors import AnalysisError, TimestepError, TooFewFramesError


def spectrum(signals, timestep, resolution=20.0):
    out = PowerSpectrum(timestep, resolution)
    for row in signals:
        out.add(row)
    return out


def damped(position, width, timestep, n, seed, signals=1):
    """Noise-driven oscillators: a Lorentzian line of known position and width, 1/cm."""
    turn, decay = 2.0 * np.pi * LIGHT * timestep * position, np.pi * LIGHT * timestep * width
    memory = [1.0, -2.0 * np.exp(-decay) * np.cos(turn), np.exp(-2.0 * decay)]
    noise = np.random.default_rng(seed).normal(size=(n + 2000, signals))
    return lfilter([1.0], memory, noise, axis=0)[2000:]


# ---------------------------------------------------------------- segments


@given(st.integers(1, 7), st.integers(0, 6), st.integers(0, 40))
def test_segments_are_those_of_the_whole(length, overlap, n):
    hop = max(1, length - overlap)
    stream = np.arange(2 * n, dtype=float).reshape(n, 2)
    segments = Segments(length, hop)
    found = [s.copy() for s in map(segments.add, stream) if s is not None]
    wanted = [stream[k : k + length] for k in range(0, n - length + 1, hop)]
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert np.array_equal(a, b)


def test_segments_take_four_bytes_for_each_number_and_frame():
    segments = Segments(100, 50)
    segments.add(np.zeros(7))
    for _ in range(300):
        segment = segments.add(np.zeros(7))
        assert segment is None or segment.nbytes == 4 * 7 * 100


# ---------------------------------------------------------------- spectra


@pytest.mark.parametrize("position", [50.0, 1000.7, 4173.3, 4400.0])
def test_a_sharp_line_is_where_it_is(position):
    """To a fiftieth of the resolution: what sampling a window's line at finite points costs."""
    times = 0.5 * np.arange(12_000)
    phases = np.random.default_rng(1).uniform(0.0, 2.0 * np.pi, 6)
    found = spectrum(np.cos(2.0 * np.pi * LIGHT * position * times[:, None] + phases), 0.5)
    line = found.line(10.0)
    assert line.position == pytest.approx(position, abs=0.02 * 20.0)
    assert line.width < 0.1 * 20.0
    # The area is the mean square: white or not, Parseval.
    assert np.trapezoid(found.power, found.wavenumbers) == pytest.approx(0.5, rel=1e-4)
    # And the window is as wide as was asked for.
    half = found.power > 0.5 * found.power.max()
    width = half.sum() * (found.wavenumbers[1] - found.wavenumbers[0])
    assert width == pytest.approx(20.0, abs=4.0)


def test_errors_of_a_broad_line_are_those_of_repetition():
    """One noisy signal, as in an in-phase spectrum. 14 runs know a spread to 20 %."""
    lines = [
        spectrum(damped(4150.0, 100.0, 1.0, 10_000, seed), 1.0, 40.0).line(3000.0, 4900.0)
        for seed in range(14)
    ]
    positions, errors = (
        np.array([getattr(x, name) for x in lines]) for name in ("position", "position_error")
    )
    assert positions.mean() == pytest.approx(4150.0, abs=4.0 * positions.std() / np.sqrt(14))
    assert positions.std() < 15.0
    assert 0.5 < np.sqrt(np.mean(errors**2)) / positions.std() < 1.6
    widths = np.array([x.width for x in lines])
    assert widths.mean() == pytest.approx(100.0, abs=4.0 * widths.std() / np.sqrt(14))


def test_a_line_is_not_pulled_by_its_neighbour():
    both = damped(4150.0, 30.0, 1.0, 20_000, 0, 12)
    both += 0.5 * damped(3700.0, 30.0, 1.0, 20_000, 1, 12)
    found = spectrum(both, 1.0)
    strong, weak = found.line(1000.0), found.line(1000.0, 3900.0)
    assert strong.position == pytest.approx(4150.0, abs=5.0 * strong.position_error)
    assert weak.position == pytest.approx(3700.0, abs=5.0 * weak.position_error)
    assert strong.position_error < 2.0 and weak.position_error < 2.0


@given(seeds)
def test_spectra_do_not_know_the_direction_of_time(seed):
    signals = np.random.default_rng(seed).normal(size=(151, 3))
    forward, backward = (PowerSpectrum(1.0, 1.441 / (50 * LIGHT)) for _ in range(2))
    assert forward.length == 50
    # A window leaves out its first frame: what comes last is the first of none.
    for there, back in zip(signals, signals[::-1], strict=True):
        forward.add(there)
        backward.add(back)
    assert forward.segments == 5
    # Single precision.
    assert backward.power == pytest.approx(forward.power, rel=1e-4, abs=1e-5 * forward.power.max())


def test_no_line():
    with pytest.raises(AnalysisError, match="nothing moves"):
        find_line(np.arange(100.0), np.zeros(100), 0.0, 5.0)
    with pytest.raises(AnalysisError, match="highest at 99 1/cm, where the range"):
        find_line(np.arange(100.0), np.arange(100.0), 0.0, 5.0)
    with pytest.raises(AnalysisError, match="range of wavenumbers is empty"):
        spectrum(damped(4000.0, 50.0, 1.0, 5000, 0), 1.0).line(7000.0, 7001.0)


def test_too_few_frames_say_how_many_and_what_would_do():
    short = spectrum(np.ones((100, 1)), 1.0)
    with pytest.raises(TooFewFramesError, match=r"needs at least 2402 frames, and there are 100"):
        short.require_segment(100, "A spectrum")
    # The resolution it names is one that 100 frames have.
    with pytest.raises(TooFewFramesError) as caught:
        short.require_segment(100, "A spectrum")
    named = float(str(caught.value).split("(")[-1].split()[0])
    assert PowerSpectrum(1.0, named * 1.01).length <= 100


def test_frames_too_far_apart():
    require_sampling(3.3, 5000.0, "the vibron")
    with pytest.raises(TimestepError, match=r"up to 3336 1/cm, and the vibron may reach 5000"):
        require_sampling(5.0, 5000.0, "the vibron")


# ---------------------------------------------------------------- the integrator


@given(st.floats(10.0, 5000.0), st.floats(0.05, 1.0))
def test_verlet_shift_and_its_inverse(position, step):
    seen = verlet_seen(position, step)
    assert verlet_corrected(seen, step) == pytest.approx(position, rel=1e-10)
    turn = 2.0 * np.pi * LIGHT * position * step
    # The next term of asin is 9 / 1920 (w h)^4.
    assert seen / position - 1.0 == pytest.approx(turn**2 / 24.0, abs=9.1e-3 * turn**4 + 1e-14)


@pytest.mark.parametrize("step", [0.2, 1.0])
def test_verlet_shift_is_that_of_ases_integrator(step):
    """Zero crossings of a harmonic bond: the frequency without any spectrum."""
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.78]])
    atoms.calc = CoupledBonds(36.0, 0.0)
    n = round(300.0 / step)
    x = np.array([a.positions[1, 2] - a.positions[0, 2] for a in run(atoms, step, 1, n)]) - 0.74
    k = np.flatnonzero((x[:-1] < 0.0) & (x[1:] >= 0.0))
    crossings = (k + x[k] / (x[k] - x[k + 1])) * step
    seen = (len(k) - 1) / (crossings[-1] - crossings[0]) / LIGHT
    exact = wavenumber(36.0, 0.5 * atoms.get_masses()[0])
    # Straight lines between steps miss a crossing by h (w h)^2 / 16 or less: 0.04 of 300 fs.
    assert verlet_corrected(seen, step) == pytest.approx(exact, rel=2e-4)
    assert abs(seen - exact) > 1e-3 * exact
