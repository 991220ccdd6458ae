"""The only place that touches ComfyUI; everything here works without it too.

Inside ComfyUI these functions speak to the server; inside the headless runner to the active `RunContext`; with neither
(a node called from a test or a script) they use plain folders and show no progress.
"""

from __future__ import annotations

from .environment import check_interrupt, device, in_comfyui, report_metrics, say, warn
from .folders import (
    SavePath,
    clip_tokenizer_folder,
    files_beside,
    input_file,
    input_file_option,
    input_file_stamp,
    input_files,
    input_folder,
    model_file,
    model_file_option,
    model_file_stamp,
    model_files,
    model_folders,
    models_root,
    output_folder,
    register_model_folders,
    runs_folder,
    save_path,
    stamp_of,
    temp_folder,
)
from .images import preview_images
from .native import native_model
from .progress import ProgressBar
from .tensors import plain_torch, plain_values
from .values import node_result

__all__ = [
    "ProgressBar",
    "SavePath",
    "check_interrupt",
    "clip_tokenizer_folder",
    "device",
    "files_beside",
    "in_comfyui",
    "input_file",
    "input_file_option",
    "input_file_stamp",
    "input_files",
    "input_folder",
    "model_file",
    "model_file_option",
    "model_file_stamp",
    "model_files",
    "model_folders",
    "models_root",
    "native_model",
    "node_result",
    "output_folder",
    "plain_torch",
    "plain_values",
    "preview_images",
    "register_model_folders",
    "report_metrics",
    "runs_folder",
    "save_path",
    "say",
    "stamp_of",
    "temp_folder",
    "warn",
]
