"""What of the embedded world lies in the tree, for the health check."""

from __future__ import annotations

from ..doctor import OK, PROBLEM, Finding
from ..errors import AnimPortraitError, machine_trouble


def embedded_findings() -> list[Finding]:
    """One row per shipped file: its size, or why it cannot be used."""
    try:
        from .portraits import SHIPPED_PORTRAITS, shipped_portrait_file
    except (ImportError, RuntimeError) as error:  # packages that are missing; nowhere to keep compiled kernels
        return [Finding("embedded", "portraits", PROBLEM, machine_trouble(error) or str(error))]
    findings = []
    for name in SHIPPED_PORTRAITS:
        title = f"portrait {name}"
        try:
            size = shipped_portrait_file(name).stat().st_size
            findings.append(Finding("embedded", title, OK, f"{size / 1e6:.1f} MB"))
        except AnimPortraitError as error:
            findings.append(Finding("embedded", title, PROBLEM, str(error)))
    return findings
