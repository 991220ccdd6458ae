"""Runs Numba kernels on several threads without any OpenMP or TBB layer.

The kernels release the GIL and take a range of independent tasks, so that plain Python threads are enough. Compared
with Numba's own parallel loops this compiles in a third of the time, has no second pool of spinning OpenMP workers that
fights with torch's on a busy machine, and any number of Python threads may render at once (Numba's fallback layer
"workqueue" aborts the process then, so that its parallel loops would need a lock around every launch).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from ..progress import behind, may_stop

_CHUNKS_PER_THREAD = 4  # after each of them the work may be stopped
_MAX_THREADS = 16

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _forget_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _shared_pool() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="render")
        return _pool


def run_parallel(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """Calls kernel(*arguments, begin, end) over ranges that make up 0..count, on torch.get_num_threads() threads.

    The kernel must release the GIL and its tasks must not depend on each other; then the result does not depend on the
    number of threads either. Whoever may stop the work (`progress.stopped_by`) ends it between two ranges, and what the
    kernel should have written is then worth nothing.
    """
    workers = max(min(torch.get_num_threads(), _MAX_THREADS, count), 1)
    if not getattr(kernel, "signatures", True):
        behind(lambda: kernel(*arguments, 0, 0))  # compiles it, or reads what was compiled
    chunks = max(min(count, workers * _CHUNKS_PER_THREAD), 1)
    bounds = [count * i // chunks for i in range(chunks + 1)]
    ranges = iter(list(zip(bounds[:-1], bounds[1:])))  # shared: next() on a list iterator is atomic under the GIL

    def work(after_each: Callable[[], None] = lambda: None) -> None:
        for begin, end in ranges:
            kernel(*arguments, begin, end)
            after_each()

    futures = [_shared_pool().submit(work) for _ in range(workers - 1)]
    try:
        work(may_stop)
    finally:
        list(ranges)  # what is left of a stop is nobody's
        for future in futures:
            future.result()
