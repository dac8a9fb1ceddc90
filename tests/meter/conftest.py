"""Property tests measure no time: the machine may be busy with something else."""

from hypothesis import settings

settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")
