"""The only place that touches ComfyUI; everything here works without it too.

Inside ComfyUI these functions speak to the server; inside the headless runner to the active `RunContext`; with neither
(a node called from a test or a script) they use plain folders and show no progress.
"""

from __future__ import annotations

from .cameras import LOAD3D_CAMERA, HostCameras, cameras_of_host, host_cameras
from .environment import check_interrupt, device, in_comfyui, report_metrics, say, warn
from .folders import (
    EMBEDDED_PREFIX,
    SavePath,
    Upload,
    clip_tokenizer_folder,
    files_beside,
    input_file,
    input_file_option,
    input_file_stamp,
    input_files,
    input_folder,
    made_file,
    made_file_option,
    made_files,
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
from .geometry import (
    FILE_3D_GLB,
    FILE_3D_PLY,
    MESH,
    MODEL_3D,
    SPLAT,
    HostFile,
    HostMesh,
    host_file,
    host_mesh,
    host_splat,
    known_sockets,
    mesh_of_host,
)
from .images import film, pictures_in, preview_images
from .memory import device_with_room
from .metadata import GRAPH_INPUTS, graph_texts
from .native import native_model
from .progress import ProgressBar
from .tensors import plain_torch, plain_values
from .values import node_result

__all__ = [
    "EMBEDDED_PREFIX",
    "FILE_3D_GLB",
    "FILE_3D_PLY",
    "GRAPH_INPUTS",
    "LOAD3D_CAMERA",
    "MESH",
    "MODEL_3D",
    "SPLAT",
    "HostCameras",
    "HostFile",
    "HostMesh",
    "ProgressBar",
    "SavePath",
    "Upload",
    "cameras_of_host",
    "check_interrupt",
    "clip_tokenizer_folder",
    "device",
    "device_with_room",
    "files_beside",
    "film",
    "graph_texts",
    "host_cameras",
    "host_file",
    "host_mesh",
    "host_splat",
    "in_comfyui",
    "input_file",
    "input_file_option",
    "input_file_stamp",
    "input_files",
    "input_folder",
    "known_sockets",
    "made_file",
    "made_file_option",
    "made_files",
    "mesh_of_host",
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
    "pictures_in",
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
