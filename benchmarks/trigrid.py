"""Times the trigrid renderer: the fast path against the dense one, by pixels and by levels.

    python benchmarks/trigrid.py PORTRAIT.safetensors      # one portrait
    python benchmarks/trigrid.py                           # a synthetic one; --levels 8 16 32 64 128 256 512

Times are seconds of processor time over all threads (--wall for wall-clock), so that they compare on busy machines too.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from animportrait3d_core.cameras import orbit_cameras  # noqa: E402
from animportrait3d_core.portrait.protocol import MeshSettings  # noqa: E402
from animportrait3d_core.portrait.trigrid import (  # noqa: E402
    SAMPLING_PRESETS,
    TrigridPortrait,
    load_trigrid_portrait,
    render_trigrid,
    trigrid_mesh,
)
from animportrait3d_core.portrait.trigrid.fast import prepare  # noqa: E402
from animportrait3d_core.portrait.trigrid.fit_state import initial_state, portrait_of  # noqa: E402


def synthetic_portrait(levels: tuple[int, ...]) -> TrigridPortrait:
    """A solid ball with smooth random colours."""
    generator = np.random.default_rng(0)
    state = initial_state(levels, np.ones((1, 1, 1), bool), generator)
    state.parts["hidden_weight"][0] = 0
    state.parts["hidden_weight"][:, 0] = 0
    state.parts["hidden_weight"][0, 0] = 40
    state.parts["hidden_bias"][0, 0] = -8
    state.parts["output"][0] = 0
    state.parts["output"][0, [0, -1]] = 10, -15
    portrait = portrait_of(state, torch.ones(3), "", torch.float32)
    grids = {}
    for level, grid in portrait.levels.items():
        v, u = torch.meshgrid(*[(torch.arange(level) + 0.5) / level * 2 - 1] * 2, indexing="ij")
        grid = grid.clone()
        grid[:, 0] = 0
        grid[0, 0] = 3 * (1 - 4 * u**2 - 4 * v**2)
        grid[2, 0] = -12 * v**2
        grids[level] = grid
    return dataclasses.replace(portrait, levels=grids)


def seconds_of(call: Callable[[], object], clock: Callable[[], float], repeats: int) -> float:
    """Least time of some calls."""
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portrait", nargs="?", type=Path)
    parser.add_argument("--levels", nargs="+", type=int, default=[8, 16, 32, 64, 128])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--wall", action="store_true")
    options = parser.parse_args()
    clock = time.perf_counter if options.wall else time.process_time
    portrait = (
        load_trigrid_portrait(options.portrait) if options.portrait else synthetic_portrait(tuple(options.levels))
    )
    portrait = dataclasses.replace(portrait, rendering=SAMPLING_PRESETS["paper"])
    dense = dataclasses.replace(portrait, rendering=dataclasses.replace(portrait.rendering, backend="dense"))
    camera = orbit_cameras([20.0], [0.0], 64)
    render_trigrid(synthetic_portrait((8,)), camera)  # compile
    print(f"levels {sorted(portrait.levels)}, {torch.get_num_threads()} threads, 96 + 96 samples")
    print(f"prepare            {seconds_of(lambda: prepare(portrait), clock, 1):8.3f} s")
    slow = seconds_of(lambda: render_trigrid(dense, camera), clock, 1)
    print(f"dense    64 px     {slow:8.3f} s {64 * 64 / slow:10.0f} rays/s")
    for size in options.sizes:
        view = camera.resized(size, size)
        fast = seconds_of(lambda view=view: render_trigrid(portrait, view), clock, 3)
        ratio = (size * size / fast) / (64 * 64 / slow)
        print(f"fast  {size:5d} px     {fast:8.3f} s {size * size / fast:10.0f} rays/s {ratio:6.1f} x")
    print(f"mesh of 160^3      {seconds_of(lambda: trigrid_mesh(portrait, MeshSettings(160)), clock, 1):8.3f} s")


if __name__ == "__main__":
    main()
