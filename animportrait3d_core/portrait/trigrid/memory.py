"""How much memory is free, and how many rays fit into a share of it."""

from __future__ import annotations

import os
from pathlib import Path

FREE_SHARE = 8  # a step takes at most one eighth of what is free
MAX_CHUNK_RAYS = 4096  # larger steps are no faster
MIN_CHUNK_RAYS = 16
UNKNOWN_FREE_BYTES = 2 << 30
_CGROUP_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def free_memory_bytes() -> int:
    """Bytes of memory that are free for this process: of the machine, or of its container if that has less."""
    candidates = [_free_of_container(limit, usage) for limit, usage in _CGROUP_LIMITS]
    candidates.append(_free_of_machine())
    known = [value for value in candidates if value is not None]
    return max(min(known), 0) if known else UNKNOWN_FREE_BYTES


def _free_of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None  # Windows has neither


def _free_of_container(limit: Path, usage: Path) -> int | None:
    try:
        return int(limit.read_text()) - int(usage.read_text())
    except (OSError, ValueError):
        return None  # no container, or one without a limit ("max")


def chunk_rays(bytes_per_ray: int, free_bytes: int | None = None) -> int:
    """Rays per step, so that a step takes at most an eighth of the free memory.

    >>> chunk_rays(bytes_per_ray=1 << 20, free_bytes=1 << 30)
    128
    """
    free = free_memory_bytes() if free_bytes is None else free_bytes
    return max(MIN_CHUNK_RAYS, min(MAX_CHUNK_RAYS, free // FREE_SHARE // bytes_per_ray))
