"""How hypothesis looks for examples under `make chance`: new ones, many, and however slow the machine is."""

from hypothesis import settings

settings.register_profile("chance", settings.get_profile("ci"), derandomize=False, max_examples=500)
