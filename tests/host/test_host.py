"""The host layer: the same calls with ComfyUI (stand-in modules), under the runner, and with neither."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import pytest
import torch

from animportrait3d_core.errors import InvalidInput, MissingModelFile
from animportrait3d_core.progress import tell_values
from animportrait3d_core.workflow import Interrupted


@pytest.fixture()
def host(pack):
    return sys.modules[f"{pack.__name__}.nodes.host"]


class InterruptProcessingException(Exception):
    pass


@pytest.fixture()
def comfyui(monkeypatch, tmp_path):
    """Stand-ins for the modules of ComfyUI that the host layer speaks to; records what it is told."""
    seen = types.SimpleNamespace(updates=[], interrupted=False)
    for name in ("output", "input", "models", "temp"):
        (tmp_path / name).mkdir()

    paths = types.ModuleType("folder_paths")
    paths.models_dir = str(tmp_path / "models")
    paths.folder_names_and_paths = {"smplx": ([str(tmp_path / "elsewhere")], set())}
    paths.get_folder_paths = lambda key: paths.folder_names_and_paths[key][0]
    paths.add_model_folder_path = lambda key, folder: paths.folder_names_and_paths.setdefault(key, ([], set()))[
        0
    ].append(folder)
    for name in ("output", "input", "temp"):
        setattr(paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
    paths.get_save_image_path = lambda prefix, folder: (
        str(Path(folder) / Path(prefix).parent),
        Path(prefix).name,
        3,
        Path(prefix).parent.as_posix(),
        prefix,
    )

    class ProgressBar:
        def __init__(self, total, node_id=None):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            seen.updates.append((value, total, preview))

    def throw_exception_if_processing_interrupted():
        if seen.interrupted:
            raise InterruptProcessingException()

    utilities = types.ModuleType("comfy.utils")
    utilities.ProgressBar = ProgressBar
    management = types.ModuleType("comfy.model_management")
    management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
    management.get_torch_device = lambda: torch.device("cpu")
    for module in (paths, utilities, management):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_where_we_are(host, comfyui):
    assert host.in_comfyui() and host.device() == "cpu"


def test_an_active_run_is_not_comfyui(host, comfyui, run_context):
    assert not host.in_comfyui()
    assert host.output_folder() == run_context.output_directory


def test_nothing_around_us(host, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert not host.in_comfyui() and host.output_folder() == tmp_path / "output"
    host.check_interrupt()
    host.ProgressBar(3)(1)
    host.report_metrics("fit", {"error": 1.0})


def test_the_bar_is_the_progress_callback_of_core(host, run_context):
    seen = []
    run_context.listener = types.SimpleNamespace(node_progress=lambda *event: seen.append(event))
    bar = host.ProgressBar(10)
    bar(1)
    bar(2, 20)
    bar(20, 20)
    assert seen == [("7", 1, 10, None), ("7", 2, 20, None), ("7", 20, 20, None)]
    run_context.cancelled.set()
    with pytest.raises(Interrupted):
        bar(3)
    with pytest.raises(Interrupted):
        host.check_interrupt()


def test_the_bar_speaks_to_comfyui_and_limits_pictures(host, comfyui):
    bar = host.ProgressBar(4)
    picture = torch.full((8, 8, 3), 0.5)
    for step in range(1, 5):
        bar(step, 4, picture)
    values, totals, previews = zip(*comfyui.updates)
    assert values == (1, 2, 3, 4) and set(totals) == {4}
    # The first and the last are always shown, the two in between came too soon.
    assert [preview is not None for preview in previews] == [True, False, False, True]
    kind, image, largest = previews[0]
    assert (kind, image.size, image.getpixel((0, 0))) == ("JPEG", (8, 8), (128, 128, 128)) and largest >= 256
    comfyui.interrupted = True
    with pytest.raises(InterruptProcessingException):
        bar(4)
    with pytest.raises(InterruptProcessingException):
        host.check_interrupt()


def test_the_bar_tells_how_much_is_left(host, comfyui, monkeypatch):
    said, clock = [], [0.0]
    server = types.ModuleType("server")
    instance = types.SimpleNamespace(
        last_node_id="12", send_progress_text=lambda text, node: said.append((node, text.split("\n")))
    )
    server.PromptServer = types.SimpleNamespace(instance=instance)
    monkeypatch.setitem(sys.modules, "server", server)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    bar = host.ProgressBar(told="mouth", evaluations=2000)
    bar(0, 100)
    assert said == []  # short work needs no words
    for step in range(1, 41):
        clock[0] += 2.0
        tell_values(bar, {"image": 0.25 / step, "anchor": 12})
        bar(step, 100)
    assert said[0] == ("12", ["mouth", "1 of 100", "image 0.25, anchor 12, about 1,980 evaluations left"])
    numbers = "image 0.00625, anchor 12, about 1,200 evaluations left"
    assert said[-1] == ("12", ["mouth", "40 of 100, 2:00 left", numbers])
    count = len(said)
    bar(1, 10)  # the next pass
    assert len(said) == count  # too soon after the last words
    tell_values(bar, {})
    clock[0] += 2.0
    bar(2, 10)
    assert said[-1][1] == ["mouth", "2 of 10", "about 1,600 evaluations left"]
    instance.send_progress_text = None
    del instance.send_progress_text
    bar(3, 10)  # an older host


def test_plain_torch_makes_autograd_work_and_spares_plain_tensors(host):
    @dataclasses.dataclass(frozen=True)
    class Value:
        tensor: torch.Tensor
        parts: tuple

    class Node:
        @host.plain_torch
        def execute(self, image, value, plain):
            assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
            assert plain is outside
            weight = torch.ones(3, requires_grad=True)
            (weight * image * value.tensor * value.parts[0]).sum().backward()
            return weight.grad

    outside = Value(torch.ones(1), ("text", {"a": torch.ones(1)}, [torch.ones(1)]))
    with torch.inference_mode():
        image, value = torch.full((3,), 2.0), Value(torch.full((3,), 3.0), (torch.full((3,), 4.0), "text"))
        gradient = Node().execute(image, value=value, plain=outside)
        assert torch.is_inference_mode_enabled()
        assert image.is_inference() and value.tensor.is_inference()  # the host's own are as they were
    assert not gradient.is_inference()
    torch.testing.assert_close(gradient, torch.full((3,), 24.0))


def test_save_path_counts_in_comfyui_and_replaces_in_a_run(host, comfyui, run_context):
    plain = host.save_path("AP3D_X", "heads/anna", ".glb")
    assert plain.path == run_context.output_directory / "heads" / "anna.glb" and plain.path.parent.is_dir()
    assert plain.ui_entry() == {"filename": "anna.glb", "subfolder": "heads", "type": "output"}
    assert host.save_path("AP3D_X", "avatar", ".ply").subfolder == ""


def test_save_path_in_comfyui(host, comfyui, tmp_path):
    saved = host.save_path("AP3D_X", "heads/anna", ".glb")
    assert saved.path == tmp_path / "output" / "heads" / "anna_00003_.glb"
    assert (saved.subfolder, saved.filename) == ("heads", "anna_00003_.glb")


@pytest.mark.parametrize("prefix", ["../avatar", "a/../../avatar", "/etc/avatar", "", "  "])
def test_save_path_stays_in_the_output_folder(host, run_context, prefix):
    with pytest.raises(InvalidInput, match="AP3D_X: .*does not name a file inside"):
        host.save_path("AP3D_X", prefix, "" if not prefix.strip() else ".ply")


def test_input_files(host, run_context, tmp_path):
    assert host.input_files((".glb",)) == []
    for name in ("b.glb", "a.GLB", "sub/c.glb", "d.png"):
        (tmp_path / "input" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "input" / name).touch()
    assert host.input_files((".glb",)) == ["a.GLB", "b.glb", "sub/c.glb"]
    assert host.input_file("AP3D_X", "sub/c.glb") == tmp_path / "input" / "sub" / "c.glb"
    assert host.input_file("AP3D_X", "/elsewhere/c.glb") == Path("/elsewhere/c.glb")
    with pytest.raises(InvalidInput, match="does not name a file inside"):
        host.input_file("AP3D_X", "../secret.glb")


def test_only_the_command_line_may_name_a_model_file_by_its_path(host, comfyui):
    with pytest.raises(InvalidInput, match="'/elsewhere/body.npz' does not name a file inside"):
        host.model_file("AP3D_X", "smplx", "/elsewhere/body.npz")


def test_a_path_stands_for_a_model_file(host, run_context):
    assert host.model_file("AP3D_X", "smplx", "/elsewhere/body.npz") == Path("/elsewhere/body.npz")


def test_model_files_of_all_folders(host, comfyui, tmp_path):
    host.register_model_folders()
    for name in ("elsewhere/SMPLX_MALE.npz", "models/smplx/v1/SMPLX_NEUTRAL.npz", "models/smplx/.hidden.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert host.model_files("smplx", (".npz",)) == ["SMPLX_MALE.npz", "v1/SMPLX_NEUTRAL.npz"]
    found = host.model_file("AP3D_X", "smplx", "v1/SMPLX_NEUTRAL.npz")
    assert found == tmp_path / "models" / "smplx" / "v1" / "SMPLX_NEUTRAL.npz"
    assert host.model_folders("ap3d_normals") == [tmp_path / "models" / "ap3d_normals"]
    with pytest.raises(MissingModelFile, match="AP3D_X: no file 'SMPLX_FEMALE.npz'.*elsewhere"):
        host.model_file("AP3D_X", "smplx", "SMPLX_FEMALE.npz")


def test_comfyuis_own_tokenizer_is_found(host, comfyui, monkeypatch, tmp_path):
    assert host.clip_tokenizer_folder() is None
    module = types.ModuleType("comfy.sd1_clip")
    module.__file__ = str(tmp_path / "comfy" / "sd1_clip.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert host.clip_tokenizer_folder() is None
    (tmp_path / "comfy" / "sd1_tokenizer").mkdir(parents=True)
    assert host.clip_tokenizer_folder() == tmp_path / "comfy" / "sd1_tokenizer"


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (4, 6, 3), (1, 4, 6, 1), (1, 4, 6, 4)])
def test_preview_images_are_the_pixels_as_png(host, run_context, shape):
    from PIL import Image

    images = torch.linspace(-0.5, 1.5, 2 * 4 * 6 * 4)[: int(torch.tensor(shape).prod())].reshape(shape)
    entries = host.preview_images(images)["images"]
    assert len(entries) == (shape[0] if len(shape) == 4 else 1)
    assert all(entry["type"] == "temp" for entry in entries)
    image = Image.open(run_context.temp_directory / entries[0]["filename"])
    assert image.size == (6, 4)
    expected = (images.reshape(-1, *shape[-3:])[0].clamp(0, 1) * 255).round().to(torch.uint8)
    stored = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    assert torch.equal(stored, expected.flatten())


def test_a_film_is_announced_as_comfyui_announces_its_own(host, run_context):
    ui = host.film(host.save_path("AP3D_X", "turn", ".mp4"))
    assert ui == {"images": [{"filename": "turn.mp4", "subfolder": "", "type": "output"}], "animated": [True]}


def test_metrics_reach_the_report(host, run_context):
    host.report_metrics("fit", {"landmark_error": 0.01})
    host.report_metrics("fit", {"iou": torch.tensor(0.5)})
    assert run_context.report.metrics == {"fit": {"landmark_error": 0.01, "iou": 0.5}}
