"""Settings shared by all tests."""

import os

# Workers of the test run share the cores among them: one thread each, set before NumPy loads.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from hypothesis import HealthCheck, settings  # noqa: E402

# Reproducible and without time limits: the machines that run this are slow and shared.
settings.register_profile(
    "hmlp",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("hmlp")
