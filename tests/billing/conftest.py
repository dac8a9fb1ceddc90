"""Property tests measure no time: the machine may be busy with something else."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "without time", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("without time")
