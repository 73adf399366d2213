"""Settings of all tests. Nothing here needs more than pytest and hypothesis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run: a red test means that the code changed. No deadline, for machines that are busy.
settings.register_profile(
    "embedpack", deadline=None, derandomize=True, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("embedpack")


@pytest.fixture(scope="session", autouse=True)
def no_cache() -> Iterator[None]:
    """What the user has prepared on this machine takes no part in tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDPACK_CACHE", "")
        yield
