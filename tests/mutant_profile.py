"""A pytest plugin for tests/mutants.py: one failing example is enough, and the same ones every time."""

from hypothesis import Phase, settings

settings.register_profile(
    "mutants", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate)
)
