"""What a node shows after a run, in ComfyUI's own frontend: its result's pictures, text and film, or its error.

The page queues the graph itself; a server of ours plays the run in ComfyUI's messages. Runs in both renderers of the
installed frontend, and of those in COMFYUI_FRONTENDS (folders of pages, separated as in PATH).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from animportrait3d_core import doctor
from animportrait3d_core.animation import write_film
from animportrait3d_core.embedded.contents import embedded_findings
from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.core_nodes import CORE_NODES
from animportrait3d_core.workflow.graph import read_graph_file
from animportrait3d_core.workflow.registry import load_registry
from tests.host.browser import (
    RENDERERS,
    ROOT,
    browser_environment,
    installed_frontend,
    renderers_of,
    run_graphs,
    version_of,
)
from tests.host.comfy_protocol import Script, solid
from tests.host.frontend_server import FrontendServer, object_info

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FOLDERS = [folder for folder in os.environ.get("COMFYUI_FRONTENDS", "").split(os.pathsep) if folder]
PROGRESS = ((255, 128, 0), (230, 230, 0))
COLORS = {"green.png": (0, 160, 0), "blue.png": (0, 0, 200), "pink.png": (200, 0, 200)}
FILM_COLOR = (0, 153, 153)
ERROR = "AP3D_TestError: 3 views, expected 4. Give it four."
VERDICTS = ("Healthy", "Needs attention")
LINES = ["three\nlines", "of text"]
SHIPPED, DOCTOR = "quickstart", "health_check"


class Player:
    """A node without work: the server plays what it shows."""

    CATEGORY = "test"
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"count": ("INT", {"default": 3}), "name": ("STRING", {"default": "x"})}}


def entries(*names):
    return [{"filename": name, "subfolder": "", "type": "temp"} for name in names]


def picture_of(node_id):
    return f"node_{node_id}.png"


PLAYED = {
    "AP3D_TestPictures": Script(PROGRESS, ("3 of 10",), lambda _: {"images": entries(*COLORS), "text": LINES}),
    "AP3D_TestText": Script(PROGRESS, (), lambda _: {"text": ["only words"]}),
    "AP3D_TestFilm": Script((), ("3 of 10",), lambda _: {"images": entries("film.mp4"), "animated": [True]}),
    "AP3D_TestAlpha": Script((), (), lambda _: {"images": entries("alpha.webm"), "animated": [True]}),
    "AP3D_TestSilent": Script(PROGRESS, ("10 of 10",)),
    "AP3D_TestError": Script(PROGRESS, ("3 of 10",), lambda _: {"images": entries("pink.png")}, errors=(ERROR, "")),
}
SHIPPED_NODE = Script(
    PROGRESS, ("3 of 10",), lambda node: {"images": entries(picture_of(node)), "text": LINES}, pause=0.01
)
PLAYERS = {name: type(name, (Player,), {}) for name in PLAYED}
PICTURES, TEXT, FILM, ALPHA, SILENT, FAILED = "1", "2", "3", "4", "5", "6"
EXPECTED = {PICTURES: {"text": "\n".join(LINES), "pictures": [*COLORS]}, TEXT: {"text": "only words"}}
EXPECTED |= {FILM: {"film": "film.mp4"}, ALPHA: {"film": "alpha.webm"}, FAILED: {"text": ERROR}}
AGAIN = {**EXPECTED, FAILED: {"pictures": ["pink.png"]}}


class Kept(Player):
    """Does not run again with the same inputs, whatever its number in its graph."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}


def kept_script():
    """Tells how often such nodes have run."""
    runs = itertools.count(1)

    def tell(node_id):
        return {"images": entries("blue.png"), "text": [f"run {next(runs)}"]}

    return Script(PROGRESS, (), tell, pause=0.01, keeps=True)


def kept_graph(count, others=0):
    """A node that is kept, behind one of a `count`, after some others."""
    classes = {**PLAYERS, "AP3D_TestKept": Kept}
    graph = WorkflowBuilder("kept", classes)
    for _ in range(others):
        graph.add("AP3D_TestText")
    source = graph.add("AP3D_TestSilent", count=count)
    graph.add("AP3D_TestKept", image=source["IMAGE"])
    graph = graph.to_json()
    for index, node in enumerate(graph["nodes"]):
        node["pos"], node["size"] = [340 * index, 0], [300, 460]
    return graph


def kept_runs():
    """The third graph asks what the first one asked; its node has a number that no other graph has."""
    runs = {"kept": (kept_graph(3), 1), "other": (kept_graph(4), 2), "again": (kept_graph(3, others=10), 1)}
    return [{"name": name, "graph": graph, "expected": [shown_of(graph, run)]} for name, (graph, run) in runs.items()]


def shown_of(graph, run):
    return {kept_node(graph): {"text": f"run {run}", "pictures": ["blue.png"]}}


def kept_node(graph):
    (node,) = (node for node in graph["nodes"] if node["type"] == "AP3D_TestKept")
    return str(node["id"])


def player_graph():
    """All of them, side by side, large enough for what they show."""
    graph = WorkflowBuilder("players", PLAYERS)
    for name in PLAYERS:
        graph.add(name)
    graph = graph.to_json()
    for index, node in enumerate(graph["nodes"]):
        node["pos"], node["size"] = [340 * index, 0], [300, 460]
    return graph


def roomy_graph():
    """Nodes for which a graph leaves room, as the shipped graphs have them within their boxes."""
    graph = WorkflowBuilder("roomy", load_registry(ROOT))
    portrait = graph.add("AP3D_LoadPortrait3D", shows_picture=True, text_lines=3)
    views = graph.add("AP3D_RenderViews", subject=portrait["portrait"], shows_picture=True, text_lines=3)
    raw = graph.add("AP3D_ExtractMesh", portrait=portrait["portrait"], shows_picture=True, text_lines=3)
    normals = graph.add("AP3D_EstimateNormals", views=views["views"], shows_picture=True, text_lines=3)
    asked = {"mesh": raw["mesh"], "normals": normals["normals"], "views": views["views"]}
    mesh = graph.add("AP3D_RefineMesh", **asked, shows_picture=True, text_lines=3)
    graph.add("PreviewImage", images=mesh["image"])
    graph = graph.to_json()
    for index, node in enumerate(graph["nodes"]):
        node["pos"] = [360 * index, 0]
    return graph


def shipped_graph(name=SHIPPED):
    return read_graph_file(ROOT / "workflows" / f"{name}.json")


def doctors_notes():
    """What the Doctor says of this machine, where no model of a user's own lies: its longest report."""
    folders = {entry.key: [Path("/home/somebody/ComfyUI/models", entry.key)] for entry in doctor.MODEL_FOLDERS}
    facts = doctor.HostFacts("ComfyUI", folders, Path("/tmp"), embedded_findings())
    return doctor.to_notes(doctor.examine(facts))


def expected_of(graph):
    """Of each node of the pack that is unfolded: a collapsed one shows its title alone."""
    shown = [node for node in graph["nodes"] if not node.get("flags", {}).get("collapsed")]
    nodes = [str(node["id"]) for node in shown if node["type"].startswith("AP3D_")]
    return {node: {"text": "\n".join(LINES), "pictures": [picture_of(node)]} for node in nodes}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folder of all that is shown."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, color in COLORS.items():
        (folder / name).write_bytes(solid(color, "PNG"))
    for node in {**expected_of(shipped_graph()), **expected_of(roomy_graph())}:
        (folder / picture_of(node)).write_bytes(solid(COLORS["green.png"], "PNG"))
    frames = torch.tensor(FILM_COLOR).div(255).expand(75, 96, 96, 3)
    write_film(frames, folder / "film.mp4")
    opaque = torch.ones(75, 96, 96, 1)
    opaque[:, :, 48:] = 0
    write_film(torch.cat([frames, opaque], dim=-1), folder / "alpha.webm")
    return folder


@pytest.fixture(scope="module", params=["installed", *FOLDERS])
def shown(request, node_classes, pack, pictures, tmp_path_factory):
    """{renderer: {name of the graph: {before, runs, errors}}} from one frontend, and the folder of screenshots."""
    static = installed_frontend() if request.param == "installed" else Path(request.param)
    if static is None:
        pytest.skip("comfyui-frontend-package is not installed")
    browser_environment()
    folder = tmp_path_factory.mktemp("shown")
    classes = {**CORE_NODES, **node_classes, **PLAYERS, "AP3D_TestKept": Kept}
    notes = doctors_notes()
    scripts = {**dict.fromkeys(node_classes, SHIPPED_NODE), **PLAYED, "AP3D_TestKept": kept_script()}
    scripts["PreviewImage"] = Script((), (), lambda _: {"images": entries("green.png")}, pause=0.01)
    scripts["AP3D_Doctor"] = Script((), (), lambda _: {"text": [notes]}, pause=0.01)
    server = FrontendServer(static, object_info(classes, pack.NODE_DISPLAY_NAME_MAPPINGS), scripts, pictures)
    # First, since the page keeps what a node of the same number showed in the last graph until it has run.
    graphs = [{"name": "roomy", "graph": roomy_graph(), "expected": [expected_of(roomy_graph())]}]
    graphs += [{"name": "players", "graph": player_graph(), "expected": [EXPECTED, AGAIN]}]
    graphs += [{"name": SHIPPED, "graph": shipped_graph(), "expected": [expected_of(shipped_graph())]}]
    graphs += kept_runs()
    told = {"2": {"text": notes}}
    graphs += [{"name": DOCTOR, "graph": shipped_graph(DOCTOR), "expected": [told]}]
    try:
        found = run_graphs(server.url, folder, renderers_of(version_of(static)), graphs)
        found["prompts"] = [entry["prompt"][2] for entry in server.known["/history"].values()]
    finally:
        server.close()
        if "FRONTEND_SCREENSHOTS" in os.environ:
            target = Path(os.environ["FRONTEND_SCREENSHOTS"]) / f"results_{request.param.strip('/').replace('/', '_')}"
            shutil.copytree(folder, target, dirs_exist_ok=True)
    return {**found, "folder": folder, "notes": notes}


def on_screen(shown, renderer, run, box, color, graph="players"):
    """How many pixels of a box of the screenshot have a colour, near enough."""
    picture = np.asarray(Image.open(shown["folder"] / f"{renderer}_{graph}_{run}.png").convert("RGB")).astype(int)
    left, top, right, bottom = (max(0, round(edge)) for edge in box)
    return int((np.abs(picture[top:bottom, left:right] - color).max(axis=-1) < 40).sum())


@pytest.fixture(params=RENDERERS)
def renderer(request, shown):
    if request.param not in shown:
        pytest.skip("Nodes 2.0 of frontend 1.27 is a prototype")
    return request.param


def names_in(addresses):
    """File names of /view addresses, or the addresses themselves."""
    return [address.partition("filename=")[2].partition("&")[0] or address for address in addresses]


@pytest.mark.parametrize("run", [0, 1])
def test_pictures_and_text_of_the_result_are_shown(shown, renderer, run):
    nodes = shown[renderer]["players"]["runs"][run]
    assert names_in(nodes[PICTURES]["pictures"]) == list(COLORS)
    assert (nodes[PICTURES]["text"], nodes[TEXT]["text"]) == ("\n".join(LINES), "only words")
    for color in COLORS.values():
        assert on_screen(shown, renderer, run, nodes[PICTURES]["box"], color) > 1000


@pytest.mark.parametrize("run", [0, 1])
def test_no_picture_of_progress_is_left(shown, renderer, run):
    for node in shown[renderer]["players"]["runs"][run].values():
        assert not [address for address in node["pictures"] if address.startswith("blob:")]
        assert [on_screen(shown, renderer, run, node["box"], color) for color in PROGRESS] == [0, 0]


@pytest.mark.parametrize("run", [0, 1])
def test_no_words_of_progress_are_left(shown, renderer, run):
    """Of a node that ends without a message, too."""
    nodes = shown[renderer]["players"]["runs"][run]
    assert {name: node["progress"] for name, node in nodes.items()} == dict.fromkeys(nodes, [])


def test_no_picture_of_progress_is_left_on_a_box(shown, renderer):
    """Which shows the progress of the nodes that are folded into it."""
    for node in shown[renderer][SHIPPED]["runs"][0].values():
        assert [on_screen(shown, renderer, 0, node["box"], color, SHIPPED) for color in PROGRESS] == [0, 0]


def test_boxes_show_no_pictures_of_what_is_folded_into_them(shown, renderer):
    """Not by themselves: they would grow over what stands below. Pictures have nodes of their own beside the box."""
    graph, nodes = shipped_graph(), shown[renderer][SHIPPED]["runs"][0]
    boxes = {definition["id"] for definition in graph["definitions"]["subgraphs"]}
    found = {node["title"]: nodes[str(node["id"])]["pictures"] for node in graph["nodes"] if node["type"] in boxes}
    assert found == dict.fromkeys(found, []) and len(found) >= 3
    beside = [nodes[str(node["id"])]["pictures"] for node in graph["nodes"] if node["type"] == "PreviewImage"]
    assert [names_in(pictures) for pictures in beside] == [["green.png"]] * len(beside) and beside


def test_an_error_stands_in_red_on_the_node_that_failed_until_it_runs_again(shown, renderer):
    failed, mended = (nodes[FAILED] for nodes in shown[renderer]["players"]["runs"])
    assert failed["text"] == ERROR
    red, green, blue = (int(part) for part in failed["color"].removeprefix("rgb(").removesuffix(")").split(","))
    assert red > 150 and red > 2 * max(green, blue)
    assert mended["text"] is None and names_in(mended["pictures"]) == ["pink.png"]


def playing(shown, renderer, run, number, name):
    """The node `number`, on which the film `name` and no other plays."""
    node = shown[renderer]["players"]["runs"][run][number]
    assert names_in([film["src"] for film in node["films"]]) == [name]
    assert node["films"][0]["time"] > 0 and node["films"][0]["size"] == 96
    return node


@pytest.mark.parametrize("run", [0, 1])
def test_a_film_plays_on_its_node(shown, renderer, run):
    node = playing(shown, renderer, run, FILM, "film.mp4")
    assert on_screen(shown, renderer, run, node["box"], FILM_COLOR) > 1000


@pytest.mark.parametrize("run", [0, 1])
def test_a_film_with_alpha_plays_on_its_node(shown, renderer, run):
    """Its right half has the same colour, and is not seen."""
    node = playing(shown, renderer, run, ALPHA, "alpha.webm")
    left, top, right, bottom = node["films"][0]["box"]
    middle = (left + right) / 2
    assert on_screen(shown, renderer, run, (left, top, middle, bottom), FILM_COLOR) > 1000
    assert on_screen(shown, renderer, run, (middle + 3, top, right, bottom), FILM_COLOR) == 0


def test_every_node_of_a_shipped_graph_shows_its_result(shown, renderer):
    nodes = shown[renderer][SHIPPED]["runs"][0]
    for node, wanted in expected_of(shipped_graph()).items():
        assert names_in(nodes[node]["pictures"]) == wanted["pictures"], node
        assert nodes[node]["text"] == wanted["text"], node


def test_what_is_shown_on_a_node_is_no_input_of_it(shown):
    """The host would take it for another node, and run it again."""
    nodes = [node for prompt in shown["prompts"] for node in prompt.values() if node["class_type"] in PLAYERS]
    assert len(nodes) > 2 * len(PLAYERS)
    assert {name for node in nodes for name in node["inputs"]} == {"count", "name"}


@pytest.mark.parametrize("name", ["kept", "other", "again"])
def test_a_node_that_is_kept_shows_what_it_gave_for_the_same_inputs(shown, renderer, name):
    """In another graph, in a page that was loaded anew (the second renderer's), and after other inputs."""
    (wanted,) = (one for one in kept_runs() if one["name"] == name)
    node = shown[renderer][name]["runs"][0][kept_node(wanted["graph"])]
    (expected,) = wanted["expected"][0].values()
    assert (node["text"], names_in(node["pictures"])) == (expected["text"], expected["pictures"])


def test_the_doctors_report_fits_its_node(shown, renderer):
    """The verdict first, and all of it to be read without scrolling, in the place that the graph gives it."""
    before, (after,) = (shown[renderer][DOCTOR][key] for key in ("before", "runs"))
    assert after["2"]["text"] == shown["notes"] and after["2"]["text"].splitlines()[0].startswith(VERDICTS)
    assert after["2"]["cut"] == 0
    assert after["2"]["size"] == before["2"]["size"], "the node grew"


def test_nodes_with_room_do_not_grow_over_their_neighbours(shown):
    found = shown["classic"]["roomy"]
    roomy = ["3", "5"]  # Extract Mesh, Refine Mesh
    assert names_in([found["runs"][0][node]["pictures"][0] for node in roomy]) == [picture_of(node) for node in roomy]
    assert {node: found["runs"][0][node]["size"] for node in roomy} == {
        node: found["before"][node]["size"] for node in roomy
    }


@pytest.mark.parametrize("graph", ["players", SHIPPED, "roomy", DOCTOR, "kept", "other", "again"])
def test_the_page_logs_no_error(shown, renderer, graph):
    assert json.dumps(shown[renderer][graph]["errors"], indent=1) == "[]"
