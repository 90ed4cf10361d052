"""On the PYTHONPATH of the processes of tests: they start in four fifths of the time.

The libraries that they import are a million objects that stay, among which Python would look for garbage ever again.
"""

import gc

gc.set_threshold(100_000)
