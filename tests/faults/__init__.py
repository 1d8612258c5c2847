import pytest

pytest.register_assert_rewrite("faults.jobs", "faults.watch")
