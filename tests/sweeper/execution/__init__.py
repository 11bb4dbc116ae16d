"""Tests that import Ray: sweeper.execution.tune comes first, because it sets what Ray reads when it is imported."""

import sweeper.execution.tune  # noqa: F401
