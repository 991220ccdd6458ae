"""AP3D_Doctor: what works in this installation, as text."""

from __future__ import annotations

from typing import Any

from . import host


class Doctor:
    """The table of `animportrait3d doctor`, as ComfyUI sees it."""

    CATEGORY = "AnimPortrait3D"
    DESCRIPTION = (
        "Lists what this installation has: packages, rendering back-ends, model files (and where to get missing ones), "
        "folders. Run it first when something does not work."
    )
    SEARCH_ALIASES = [
        "health check",
        "diagnose",
        "installation",
        "missing models",
        "check",
        "troubleshoot",
        "error",
        "version",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("STRING", "BOOLEAN")
    RETURN_NAMES = ("report", "healthy")
    OUTPUT_TOOLTIPS = ("The table as text.", "True if everything that the embedded world needs works.")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        show = {"default": False, "tooltip": "List only what is missing, unverified or broken."}
        return {"required": {"only_findings": ("BOOLEAN", show)}}

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> float:
        return float("nan")  # packages and files come and go between two runs

    @host.plain_torch
    def execute(self, only_findings: bool) -> dict[str, Any]:
        from animportrait3d_core import doctor
        from animportrait3d_core.embedded.contents import embedded_findings

        facts = doctor.HostFacts(
            name="ComfyUI" if host.in_comfyui() else "headless runner",
            model_folders={entry.key: host.model_folders(entry.key) for entry in doctor.MODEL_FOLDERS},
            output_folder=host.output_folder(),
            embedded=embedded_findings(),
        )
        findings = doctor.examine(facts)
        shown = [finding for finding in findings if finding.status != doctor.OK] if only_findings else findings
        text = doctor.to_table(shown) if shown else "Everything is there."
        # The table is wider than a node.
        return host.node_result(text, not doctor.has_problem(findings), ui={"text": [doctor.to_notes(shown)]})


NODE_CLASS_MAPPINGS = {"AP3D_Doctor": Doctor}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_Doctor": "Doctor (AnimPortrait3D)"}
