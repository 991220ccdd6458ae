"""What several commands use: exit codes and options."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import InvalidInput

EXIT_DONE, EXIT_BUG, EXIT_WRONG_INPUT, EXIT_MISSING, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


def to_path(text: str) -> Path:
    """A path of the command line; shells leave the ~ of --output=~/x to us."""
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise argparse.ArgumentTypeError(f"'{text}': there is no such home folder; write the whole path")
    return Path(path)


def set_threads(where: str, threads: int | None) -> None:
    """Torch's CPU threads of this process; None leaves them. where: the command that speaks in the message."""
    import torch

    if threads is not None and threads < 1:
        raise InvalidInput(f"{where}: --threads {threads}, expected at least 1.")
    if threads:
        torch.set_num_threads(threads)
