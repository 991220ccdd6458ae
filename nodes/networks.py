"""Which 2D network a node uses: the pack's own, or a folder of the user's. Shared by nodes; there is none in here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from animportrait3d_core.networks import ImageNetwork

EMBEDDED = "embedded"
NETWORK_FILE = "network.json"
MODEL_KEY_OF_ROLE = {"parts": "ap3d_segmentation", "normals": "ap3d_normals", "landmarks": "ap3d_landmarks"}


def network_choices(role: str) -> list[str]:
    """The pack's own network for a role, then the user's folders, each by its network.json."""
    files = host.model_files(MODEL_KEY_OF_ROLE[role], (".json",))
    return [EMBEDDED, *(name for name in files if name.rsplit("/", 1)[-1] == NETWORK_FILE)]


def network_option(role: str) -> dict[str, Any]:
    """Entry of an input's options: on the command line, the path of a network folder does too."""
    return host.model_file_option(MODEL_KEY_OF_ROLE[role], (".json",), inner=NETWORK_FILE)


def network_stamp(where: str, role: str, choice: str) -> str:
    """What IS_CHANGED of a node with a network returns: of all files of the user's folder; a choice of no folder is
    itself."""
    if not choice.endswith(NETWORK_FILE):
        return choice
    return host.model_file_stamp(where, MODEL_KEY_OF_ROLE[role], choice, host.files_beside)


def chosen_network(where: str, role: str, choice: str, on_surfaces: bool = False) -> ImageNetwork:
    """The network of a choice, on the host's device. on_surfaces: the pictures come with the surface they show."""
    from animportrait3d_core.networks import load_network
    from animportrait3d_core.progress import behind

    if choice == EMBEDDED:
        from animportrait3d_core.embedded.weights import embedded_network_folder

        folder = embedded_network_folder(role, on_surfaces)
    else:
        folder = host.model_file(where, MODEL_KEY_OF_ROLE[role], choice)
    device = host.device_with_room([folder if folder.is_dir() else folder.parent])
    return behind(lambda: load_network(folder, role, device))
