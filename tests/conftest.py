"""The suites live in the package: pytest must be told to explain their assertions too."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("celeriac.testing")
