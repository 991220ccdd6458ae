"""One process-wide lock around parallel Numba kernels."""

from __future__ import annotations

import threading

# Numba's fallback threading layer ("workqueue", chosen where neither OpenMP nor TBB is found) aborts the process when
# two Python threads enter parallel kernels at once. Hosts have several threads, so every launch takes this lock.
KERNEL_LOCK = threading.Lock()
