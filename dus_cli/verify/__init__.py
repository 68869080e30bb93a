"""Checks of a checkpoint that read it anew and trust nobody; nothing here writes to it."""

import os

# numpy brings a library for linear algebra that reserves 40 MB of addresses for every core when it
# is loaded. Nothing here uses it, and under a limit on memory a large machine could not load it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
