"""Folders of the host: models, input, output, temp; and names for files that nodes save."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from animportrait3d_core.errors import InvalidInput, MissingModelFile

from .environment import comfy_module, context, in_comfyui

EMBEDDED_PREFIX = "embedded: "
"""Of choices that come with the pack and are no files of the user's."""
# Keys of our own model folders; checkpoints, controlnet, vae, loras and diffusers are the host's.
MODEL_KEYS = ("smplx", "portrait3d", "ap3d_segmentation", "ap3d_normals", "ap3d_landmarks")


@dataclass(frozen=True)
class SavePath:
    """A file to write. `subfolder` and `filename` are relative to the output folder, as `ui` entries want them."""

    path: Path
    subfolder: str
    filename: str

    def ui_entry(self) -> dict[str, str]:
        """How ComfyUI's frontend is told about a saved file."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": "output"}


def register_model_folders() -> None:
    """Make our model keys known to ComfyUI, beside what extra_model_paths.yaml configures; nothing elsewhere."""
    folder_paths = comfy_module("folder_paths")
    if folder_paths is not None:
        for key in MODEL_KEYS:
            folder_paths.add_model_folder_path(key, str(Path(folder_paths.models_dir) / key))


def models_root() -> Path:
    """The folder in which the folders of the model keys lie."""
    folder_paths = comfy_module("folder_paths")
    return Path(folder_paths.models_dir) if folder_paths is not None else context().models_directory


def model_folders(key: str) -> list[Path]:
    """All folders that are searched for a model key, ours or the host's."""
    folder_paths = comfy_module("folder_paths")
    if folder_paths is not None:
        known = key in folder_paths.folder_names_and_paths
        return [Path(folder) for folder in folder_paths.get_folder_paths(key)] if known else []
    return [context().models_directory / key]


def model_files(key: str, suffixes: tuple[str, ...] = ()) -> list[str]:
    """Names (relative, with forward slashes) of the files under a model key, sorted; all files without `suffixes`."""
    names = set()
    for folder in model_folders(key):
        for file in folder.rglob("*"):
            if file.is_file() and not file.name.startswith(".") and (not suffixes or file.suffix.lower() in suffixes):
                names.add(file.relative_to(folder).as_posix())
    return sorted(names)


def model_file(where: str, key: str, name: str) -> Path:
    """The path of a model file chosen by name; `where` begins the error message.

    ComfyUI lets users choose names only; without it, the command line may hand in an absolute path.
    """
    if Path(name).is_absolute() and not in_comfyui():
        return Path(name)
    folders = model_folders(key)
    for folder in folders:
        path = _inside(where, folder, name)
        if path.exists():
            return path
    searched = ", ".join(f"'{folder}'" for folder in folders) or "no folder"
    raise MissingModelFile(f"{where}: no file '{name}' for the model key '{key}'; searched {searched}.")


def input_folder() -> Path:
    """The folder from which users pick files."""
    folder_paths = comfy_module("folder_paths")
    return Path(folder_paths.get_input_directory()) if folder_paths is not None else context().input_directory


def input_files(suffixes: tuple[str, ...]) -> list[str]:
    """Names of the input folder's files with one of these suffixes, sorted; subfolders included."""
    folder = input_folder()
    if not folder.is_dir():
        return []
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix.lower() in suffixes)
    return sorted(file.relative_to(folder).as_posix() for file in files)


def input_file(where: str, name: str) -> Path:
    """A user's file: relative to the input folder, or an absolute path given on purpose."""
    if Path(name).is_absolute():
        return Path(name)
    return _inside(where, input_folder(), name)


OUTPUT_MARK = " [output]"
"""End of the names of files in the output folder, as ComfyUI itself writes them."""


def made_files(suffixes: tuple[str, ...], wanted: Callable[[Path], bool]) -> list[str]:
    """Names of the wanted files of the output folder (they end in OUTPUT_MARK) and the input folder; newest first."""
    found: list[tuple[float, str]] = []
    for folder, mark in ((output_folder(), OUTPUT_MARK), (input_folder(), "")):
        for file in folder.rglob("*") if folder.is_dir() else ():
            if file.suffix.lower() in suffixes and file.is_file() and wanted(file):
                found.append((file.stat().st_mtime, file.relative_to(folder).as_posix() + mark))
    return [name for _, name in sorted(found, reverse=True)]


def made_file(where: str, name: str) -> Path:
    """The path of one of these names, or of an absolute path given on purpose."""
    if name.endswith(OUTPUT_MARK):
        return _inside(where, output_folder(), name.removesuffix(OUTPUT_MARK))
    return input_file(where, name)


def made_file_option(suffixes: tuple[str, ...], upload: Upload | None = None) -> dict[str, Any]:
    """Entry of an input's options: it names files of the input and the output folder."""
    return _file_input(["input", "output"], suffixes, upload)


def input_file_stamp(where: str, name: str, companions: Callable[[Path], Iterable[Path]] | None = None) -> str:
    """What IS_CHANGED of a loader returns: time and size of the file, or why it cannot be read (the run tells).

    companions: which other files the result depends on (materials, textures); theirs are added.
    """
    return stamp_of(lambda: _with_companions(input_file(where, name), companions))


@dataclass(frozen=True)
class Upload:
    """How `web/upload.js` brings the user's files into the input folder: the words on its button, the folder below
    `input`, what comes along (suffixes), and what stands before the name in the choice."""

    label: str
    folder: str
    companions: tuple[str, ...] = ()
    prefix: str = ""


def input_file_option(suffixes: tuple[str, ...], upload: Upload | None = None) -> dict[str, Any]:
    """Entry of an input's options: it names files of the input folder, or takes a path on the command line."""
    return _file_input(["input"], suffixes, upload)


def model_file_option(
    keys: str | tuple[str, ...], suffixes: tuple[str, ...], inner: str = "", upload: Upload | None = None
) -> dict[str, Any]:
    """The same for files of one or more model keys. With `inner`, the path of a folder stands for that file in it."""
    option = _file_input([f"models/{key}" for key in ((keys,) if isinstance(keys, str) else keys)], suffixes, upload)
    return {"file_input": option["file_input"] | ({"inner": inner} if inner else {})}


def _file_input(folders: list[str], suffixes: tuple[str, ...], upload: Upload | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"folders": folders, "suffixes": list(suffixes)}
    if upload is not None:
        entry["upload"] = asdict(upload) | {"companions": list(upload.companions)}
    return {"file_input": entry}


def model_file_stamp(
    where: str, key: str, name: str, companions: Callable[[Path], Iterable[Path]] | None = None
) -> str:
    """The same of a model file."""
    return stamp_of(lambda: _with_companions(model_file(where, key, name), companions))


def files_beside(path: Path) -> list[Path]:
    """Companions of a file that describes a folder: everything in it."""
    return sorted(file for file in path.parent.iterdir() if file.is_file())


def _with_companions(path: Path, companions: Callable[[Path], Iterable[Path]] | None) -> list[Path]:
    return [path, *(companions(path) if companions is not None else ())]


def stamp_of(find: Callable[[], Iterable[Path]]) -> str:
    """What IS_CHANGED of a loader of several files and folders returns: name, time and size of every file in them, or
    why one cannot be read (the run tells)."""
    try:
        files = [file for path in find() for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        stats = [(file.name, file.stat()) for file in files]
    except (OSError, InvalidInput, MissingModelFile) as error:
        return str(error)
    return "\n".join(f"{name} {stat.st_mtime_ns} {stat.st_size}" for name, stat in stats)


def clip_tokenizer_folder() -> Path | None:
    """ComfyUI's own copy of the tokenizer of Stable Diffusion 1.5, which no single file holds; None elsewhere."""
    module = comfy_module("comfy.sd1_clip")
    folder = Path(str(module.__file__)).parent / "sd1_tokenizer" if module is not None else None
    return folder if folder is not None and folder.is_dir() else None


def output_folder() -> Path:
    """Where results are saved."""
    folder_paths = comfy_module("folder_paths")
    return Path(folder_paths.get_output_directory()) if folder_paths is not None else context().output_directory


def temp_folder() -> Path:
    """Where previews go; emptied by the host."""
    folder_paths = comfy_module("folder_paths")
    return Path(folder_paths.get_temp_directory()) if folder_paths is not None else context().temp_directory


def runs_folder() -> Path:
    """Where long work keeps its state until it is done: a run that was stopped, or died, goes on there."""
    from animportrait3d_core.files import cache_directory

    return cache_directory() / "runs"


def save_path(where: str, prefix: str, suffix: str) -> SavePath:
    """Where a node saves `prefix` ("avatar", "heads/anna") with `suffix` (".glb").

    ComfyUI counts up (avatar_00001_.glb), as its own save nodes do; files of one run have one number, if it is free.
    The headless runner writes the plain name (avatar.glb) and replaces what an earlier run left: its output folder
    belongs to one workflow.
    """
    root = output_folder()
    path = _inside(where, root, prefix + suffix)
    folder_paths = comfy_module("folder_paths")
    if folder_paths is not None:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, str(root))
        number = _number_of_run(counter, lambda number: Path(folder) / f"{name}_{number:05}_{suffix}")
        filename = f"{name}_{number:05}_{suffix}"
        return SavePath(Path(folder) / filename, subfolder, filename)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"{where}: the folder '{path.parent}' cannot be made ({error.strerror}); choose another name."
        ) from error
    subfolder = path.parent.relative_to(root).as_posix()
    return SavePath(path, "" if subfolder == "." else subfolder, path.name)


_LAST_NUMBER: dict[str, int] = {}
"""The number of the files of the run that saved last."""


def _number_of_run(counter: int, file_of: Callable[[int], Path]) -> int:
    """The number of this run, which the first file that it saves chooses; the counter's where that file is taken.

    counter: the first number that is free whatever the suffix.
    """
    utilities = comfy_module("comfy_execution.utils")
    executing = utilities.get_executing_context() if utilities is not None else None
    if executing is None:
        return counter
    number = _LAST_NUMBER.get(executing.prompt_id, counter)
    number = counter if file_of(number).exists() else number
    _LAST_NUMBER.clear()
    _LAST_NUMBER[executing.prompt_id] = number
    return number


def _inside(where: str, folder: Path, name: str) -> Path:
    """`folder / name`, refused if that leaves the folder."""
    path = folder / name
    if not name.strip() or Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(f"{where}: '{name}' does not name a file inside '{folder}'.")
    return path
