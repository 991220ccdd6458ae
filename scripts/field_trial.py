"""Runs workflows/mesh_portrait.json on every head of a folder and writes a table: see scripts/field_trial.sh."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
GRAPH = ROOT / "workflows" / "mesh_portrait.json"
MARKS = ROOT / "tests" / "data" / "field_marks.json"
METRICS = ("surface_rms_face", "landmark_error", "psnr_portrait", "coverage")
COLUMNS = ("head", "ended", "seconds", *METRICS, "lids", "lips", "eyeball", "outside lips", "warnings")


def heads_of(folder: Path) -> list[Path]:
    """The mesh files of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def metrics_of(report: dict[str, Any]) -> dict[str, float]:
    """All metrics of a report by name, whatever stage they belong to."""
    return {name: value for stage in report.get("metrics", {}).values() for name, value in stage.items()}


def marked_errors(head: Path, avatar_file: Path) -> dict[str, str]:
    """Mean distance of points that were marked by eye to the avatar's contours of lids and of lips, over that of the
    outer eye corners; nothing for a head without marks."""
    import torch

    from animportrait3d_core.avatar.io import load_avatar
    from animportrait3d_core.body.landmarks import outer_eye_distance
    from animportrait3d_core.landmarks import MOUTH
    from animportrait3d_core.portrait.alignment import HeadAlignment
    from animportrait3d_core.portrait.contours import distances_to_contours

    marks = json.loads(MARKS.read_text(encoding="utf-8")).get(head.name)
    if marks is None:
        return {}
    avatar = load_avatar(avatar_file)
    landmarks = avatar.body(avatar.parameters).landmarks[0]
    alignment = HeadAlignment.from_json(avatar.metadata["portrait_alignment"])
    points = alignment.apply(torch.tensor(list(marks.values()), dtype=torch.float32)).float()
    found = distances_to_contours(landmarks, dict(zip(map(int, marks), points, strict=True)))
    unit = float(outer_eye_distance(landmarks))
    lids = [value for number, value in found.items() if number < MOUTH.start]
    lips = [value for number, value in found.items() if number >= MOUTH.start]
    return {name: f"{sum(few) / len(few) / unit:.3f}" for name, few in (("lids", lids), ("lips", lips))}


def motion_labels(avatar_file: Path) -> dict[str, str]:
    """What of eyes and mouth shows where it should not while the avatar's body moves."""
    import torch

    from animportrait3d_core.avatar.io import load_avatar
    from animportrait3d_core.evaluation.mouth_and_eyes import eyeball_pixels, mouth_beside_lips

    avatar = load_avatar(avatar_file)
    awake = avatar.parameters.awake()
    asleep = awake.replace(eyelids=torch.ones(1, 2))
    beside = mouth_beside_lips(avatar.body, awake)
    return {"eyeball": str(eyeball_pixels(avatar.body, asleep)), "outside lips": f"{beside:.1%}"}


def run_head(head: Path, output: Path, arguments: list[str]) -> dict[str, Any]:
    """Run the graph on one head; a row of the table, with everything that was said as `said`."""
    line = [sys.executable, "-m", "animportrait3d_core", "run", str(GRAPH), "--output", str(output), "--previews"]
    line += ["--set", f"AP3D_PortraitFromMesh.file={head}", *arguments]
    started = time.monotonic()
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    row: dict[str, Any] = {"head": head.name, "seconds": f"{time.monotonic() - started:.0f}"}
    said = [text for text in done.stderr.splitlines() if text.startswith(("warning: ", "animportrait3d: error"))]
    report = output / "report.json"
    written = report.is_file() and done.returncode == 0
    found = metrics_of(json.loads(report.read_text(encoding="utf-8"))) if written else {}
    row |= {name: f"{found[name]:.4g}" for name in METRICS if name in found}
    avatar = output / "avatar.safetensors"
    row["ended"] = "avatar" if avatar.is_file() and written else f"exit {done.returncode}"
    if row["ended"] == "avatar":
        row |= marked_errors(head, avatar) | motion_labels(avatar)
    return row | {"warnings": sum(text.startswith("warning: ") for text in said), "said": said}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, and below it what was said of each head."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in COLUMNS) + " |" for row in rows]
    for row in rows:
        lines += ["", f"{row['head']}:", *(f"- {text}" for text in row["said"])] if row["said"] else []
    return "\n".join(lines) + "\n"


def main(folder: Path, output: Path, arguments: list[str]) -> int:
    """Every head of the folder; 1 if one has no avatar, 2 if there is no head."""
    heads = heads_of(folder)
    if not heads:
        print(f"field_trial: no mesh in '{folder}' (one of {', '.join(SUFFIXES)}).", file=sys.stderr)
        return 2
    rows = []
    for number, head in enumerate(heads, start=1):
        print(f"[{number}/{len(heads)}] {head.name} ...", flush=True)
        rows.append(run_head(head, output / head.name.replace(".", "_"), arguments))
        print(f"    {rows[-1]['ended']} after {rows[-1]['seconds']} s, {rows[-1]['warnings']} warnings", flush=True)
        output.mkdir(parents=True, exist_ok=True)
        (output / "table.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))
    return int(any(row["ended"] != "avatar" for row in rows))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]), sys.argv[3:]))
