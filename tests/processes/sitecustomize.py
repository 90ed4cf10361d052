"""On the PYTHONPATH of the processes of tests."""

import quick_start  # noqa: F401
