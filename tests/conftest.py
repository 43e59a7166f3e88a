"""Settings shared by all tests."""

from hypothesis import HealthCheck, settings

# Reproducible and without time limits: the machines that run this are slow and shared.
settings.register_profile(
    "hmlp",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("hmlp")
