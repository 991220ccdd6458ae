"""Is everything there? One table of interpreter, packages, back-ends, model files, folders and the host."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import AnimPortraitError, machine_trouble
from .files import cache_directory, temporary_parent

OK, MISSING, UNVERIFIED, PROBLEM = "ok", "missing", "unverified", "problem"

REQUIRED_PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "scipy",
    "safetensors",
    "smplx",
    "trimesh",
    "libigl",
    "scikit-image",
    "segmentation-models-pytorch",
    "Pillow",
    "tqdm",
)

# Distribution -> what it adds, and how to get it.
OPTIONAL_PACKAGES = {
    "gsplat": "Gaussian rasteriser on CUDA; pip install 'animportrait3d[cuda]' (needs nvcc); without it: Numba",
    "nvdiffrast": "mesh rasteriser on CUDA, non-commercial licence; without it: Numba",
    "tinycudann": "hash-grid colour field on CUDA; without it: our own hash grid",
    "diffusers": "score distillation from diffusers folders; pip install diffusers transformers",
}


@dataclass(frozen=True)
class ModelFolder:
    """Files of one model key that a user may bring."""

    key: str
    suffixes: tuple[str, ...]
    what: str
    source: str
    licence: str
    without: str


def _network_folder(key: str, what: str) -> ModelFolder:
    """A model key for 2D networks of the user, beside the pack's own."""
    return ModelFolder(
        key=key,
        suffixes=(".safetensors",),
        what=f"{what} (segmentation-models-pytorch)",
        source="your own (docs/networks.md)",
        licence="that of the checkpoint",
        without="the pack's own network, made for its embedded portraits",
    )


MODEL_FOLDERS = (
    ModelFolder(
        key="smplx",
        suffixes=(".npz", ".pkl", ".zip"),
        what="SMPL-X body model, SMPLX_NEUTRAL (2020 or v1.1)",
        source="https://smpl-x.is.tue.mpg.de (free registration)",
        licence="SMPL-X licence, non-commercial research",
        without="the embedded mannequin",
    ),
    ModelFolder(
        key="portrait3d",
        suffixes=(".pth", ".pt", ".pkl", ".safetensors"),
        what="static portraits of Portrait3D ({id}.pth) and their generator (model_512.pkl)",
        source="https://github.com/oneThousand1000/Portrait3D",
        licence="given there; the generator rests on EG3D, NVIDIA's non-commercial licence",
        without="the embedded portraits, or any GLB, OBJ or PLY head",
    ),
    _network_folder("ap3d_segmentation", "face parsing network"),
    _network_folder("ap3d_normals", "portrait normal estimator"),
    _network_folder("ap3d_landmarks", "detector of 68 facial landmarks"),
)


@dataclass(frozen=True)
class HostFacts:
    """What only the caller knows: the host's name, its folders of model files (by key) and output; what is embedded."""

    name: str
    model_folders: Mapping[str, Sequence[Path]]
    output_folder: Path
    embedded: Sequence[Finding] = ()


@dataclass(frozen=True)
class Finding:
    """One row: `status` is ok, missing (optional and absent), unverified, or problem (something will not work)."""

    section: str
    name: str
    status: str
    detail: str


def headless_facts(models_directory: Path, output_directory: Path, embedded: Sequence[Finding] = ()) -> HostFacts:
    """The facts of the command line, where every model key is a folder below one."""
    folders = {entry.key: [models_directory / entry.key] for entry in MODEL_FOLDERS}
    return HostFacts("command line (ComfyUI is not running)", folders, output_directory, embedded)


def examine(host: HostFacts) -> list[Finding]:
    """Look at everything; downloads, compiles and changes nothing but a file written and removed in the folders."""
    findings = [_python(), Finding("system", "host", OK, host.name)]
    findings += [_required(name) for name in REQUIRED_PACKAGES]
    findings += [_video()]
    findings += [_optional(name, purpose) for name, purpose in OPTIONAL_PACKAGES.items()]
    findings += _devices()
    findings += _backends()
    findings += host.embedded
    findings += [_models(entry, host.model_folders.get(entry.key, ())) for entry in MODEL_FOLDERS]
    findings += [_cache(), _temporary(), _writable("output", host.output_folder)]
    return findings


def has_problem(findings: Sequence[Finding]) -> bool:
    """Whether something needed does not work."""
    return any(finding.status == PROBLEM for finding in findings)


def to_json(findings: Sequence[Finding]) -> dict[str, object]:
    """For machines: all rows, and whether the whole is healthy."""
    return {"healthy": not has_problem(findings), "findings": [asdict(finding) for finding in findings]}


def to_table(findings: Sequence[Finding]) -> str:
    """For people: aligned columns, a blank line between sections, one closing sentence."""
    widths = [max(len(row) for row in column) for column in zip(*((f.section, f.name, f.status) for f in findings))]
    lines: list[str] = []
    for index, finding in enumerate(findings):
        if index and finding.section != findings[index - 1].section:
            lines.append("")
        cells = (finding.section, finding.name, finding.status)
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + "  " + finding.detail)
    return "\n".join([*lines, "", verdict(findings)])


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence: whether all works, or what does not."""
    problems = [finding.name for finding in findings if finding.status == PROBLEM]
    return f"Needs attention: {', '.join(problems)}." if problems else "Healthy: the embedded world runs here."


def to_notes(findings: Sequence[Finding]) -> str:
    """For a narrow field: the verdict, what does not work, what is absent and not needed, and the names of the rest."""
    by_status = {status: [f for f in findings if f.status == status] for status in (PROBLEM, UNVERIFIED, MISSING, OK)}
    lines = [verdict(findings)]
    for status in (PROBLEM, UNVERIFIED):
        lines += [f"{finding.name}: {status}: {finding.detail}" for finding in by_status[status]]
    if by_status[MISSING]:
        lines += ["", f"Not here, and not needed ({len(by_status[MISSING])}):"]
        lines += [f"- {finding.name}: {finding.detail}" for finding in by_status[MISSING]]
    if by_status[OK]:
        lines += ["", f"Works ({len(by_status[OK])}): {', '.join(finding.name for finding in by_status[OK])}"]
    return "\n".join(lines)


def _python() -> Finding:
    status = OK if sys.version_info >= (3, 10) else PROBLEM
    return Finding("system", "python", status, f"{platform.python_version()} on {platform.platform()}, 3.10 or newer")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _required(distribution: str) -> Finding:
    version = _version(distribution)
    if version is None:
        return Finding("packages", distribution, PROBLEM, f"pip install {distribution}")
    return Finding("packages", distribution, OK, version)


def _optional(distribution: str, purpose: str) -> Finding:
    version = _version(distribution)
    if version is None:
        return Finding("optional", distribution, MISSING, purpose)
    return Finding("optional", distribution, OK, f"{version}: {purpose}")


def _video() -> Finding:
    """mp4 is written by PyAV, which brings its own ffmpeg; some builds lack the H.264 encoder."""
    version = _version("av")
    if version is None:
        return Finding("packages", "av", PROBLEM, "mp4 files cannot be written; pip install av")
    try:
        codec = importlib.import_module("av").codec.Codec("libx264", "w")
    except Exception as error:  # a broken shared library or a missing encoder: both are findings, not our failure
        fix = "pip install --force-reinstall av"
        return Finding("packages", "av", PROBLEM, f"{version}, no H.264 encoder ({error}); {fix}")
    return Finding("packages", "av", OK, f"{version}, encoder {codec.name}")


def _devices() -> list[Finding]:
    try:
        import torch
    except ImportError:
        return []
    findings = [Finding("device", "cpu", OK, f"{torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            findings.append(Finding("device", f"cuda:{index}", OK, f"{properties.name}, {memory:.0f} GiB"))
    else:
        findings.append(Finding("device", "cuda", MISSING, "torch sees no CUDA GPU; everything runs on the CPU"))
    return findings


def _backends() -> list[Finding]:
    try:
        backends = importlib.import_module(".render", __package__).available_backends(compile_extensions=True)
        backends += importlib.import_module(".surface.hash_grid", __package__).available_backends()
    except (ImportError, RuntimeError) as error:
        return [Finding("back-ends", "render", PROBLEM, machine_trouble(error) or f"cannot be imported: {error}")]
    findings = []
    for name, usable, verified, reason in backends:
        status = MISSING if not usable else OK if verified else UNVERIFIED
        findings.append(Finding("back-ends", name, status, reason or "usable"))
    return findings


def _models(entry: ModelFolder, folders: Sequence[Path]) -> Finding:
    files = sorted(
        file.relative_to(folder).as_posix()
        for folder in folders
        if folder.is_dir()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix.lower() in entry.suffixes
    )
    if files:
        more = f" (+{len(files) - 4} more)" if len(files) > 4 else ""
        return Finding("models", entry.key, OK, f"{', '.join(files[:4])}{more}: {entry.what}")
    where = ", ".join(f"'{folder}'" for folder in folders) or "no folder"
    detail = f"none in {where}. {entry.what}: {entry.source}; licence: {entry.licence}. Without: {entry.without}"
    return Finding("models", entry.key, MISSING, detail)


def _cache() -> Finding:
    try:
        return _writable("cache", cache_directory())
    except AnimPortraitError as error:
        return Finding("folders", "cache", PROBLEM, str(error))


def _temporary() -> Finding:
    try:
        return _writable("temporary", temporary_parent())
    except AnimPortraitError as error:
        return Finding("folders", "temporary", PROBLEM, str(error))


def _writable(name: str, folder: Path) -> Finding:
    """Try the folder, or the nearest parent that exists if it has not been made yet."""
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Finding("folders", name, OK, f"{folder} (writable)")
    except OSError as error:
        return Finding("folders", name, PROBLEM, f"{folder} cannot be written: {error.strerror}")
