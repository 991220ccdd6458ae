"""What of the embedded world lies in the tree, for the health check."""

from __future__ import annotations

from ..doctor import OK, PROBLEM, Finding
from ..errors import AnimPortraitError
from .portraits import SHIPPED_PORTRAITS, shipped_portrait_file


def embedded_findings() -> list[Finding]:
    """One row per shipped file: its size, or why it cannot be used."""
    findings = []
    for name in SHIPPED_PORTRAITS:
        title = f"portrait {name}"
        try:
            size = shipped_portrait_file(name).stat().st_size
            findings.append(Finding("embedded", title, OK, f"{size / 1e6:.1f} MB"))
        except AnimPortraitError as error:
            findings.append(Finding("embedded", title, PROBLEM, str(error)))
    return findings
