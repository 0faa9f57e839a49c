"""For all tests: time limits of hypothesis where everything is slower than on a board (emulation)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "emulated", deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
if float(os.environ.get("EDGED_TEST_SLOWNESS", "1")) > 1:
    settings.load_profile("emulated")
