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
from animportrait3d_core.workflow.context import Interrupted


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
    assert not any((tmp_path / "models").iterdir())  # known, not made
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


def test_images_in_half_precision_arrive_in_float32(host):
    class Node:
        @host.plain_torch
        def execute(self, image, mask, value):
            return image, mask, value

    with torch.inference_mode():
        half = torch.full((1, 2, 2, 3), 0.25, dtype=torch.float16)
        kept = {"levels": torch.ones(1, dtype=torch.float16)}  # values of ours may be stored in halves
        image, mask, value = Node().execute(half, mask=half[..., 0].bfloat16(), value=kept)
    assert (image.dtype, mask.dtype, value["levels"].dtype) == (torch.float32, torch.float32, torch.float16)
    assert not image.is_inference() and torch.equal(image, torch.full((1, 2, 2, 3), 0.25))
    whole = torch.ones(2, 2)
    assert Node().execute(whole, whole, None)[0] is whole


@pytest.fixture()
def gpu(comfyui, monkeypatch):
    """The stand-in with a GPU; records what its memory manager is asked."""
    management, comfyui.memory = sys.modules["comfy.model_management"], []
    management.get_torch_device = lambda: torch.device("cuda", 0)
    management.minimum_inference_memory = lambda: 1000
    management.free_memory = lambda size, device: comfyui.memory.append((size, str(device)))
    management.soft_empty_cache = lambda: comfyui.memory.append("emptied")
    return comfyui


def test_idle_models_of_the_host_make_room_for_ours(host, gpu, tmp_path):
    (tmp_path / "network" / "inner").mkdir(parents=True)
    for name, size in {"network/a": 30, "network/inner/b": 40, "single": 500}.items():
        (tmp_path / name).write_bytes(bytes(size))
    assert host.device_with_room([tmp_path / "network", tmp_path / "single", tmp_path / "absent"]) == "cuda:0"
    assert host.device_with_room() == "cuda:0"
    assert gpu.memory == [(1570, "cuda:0"), (1000, "cuda:0")]


def test_nothing_is_asked_of_a_host_without_a_gpu(host, comfyui):
    assert host.device_with_room() == "cpu"  # the stand-in has no such functions


@pytest.mark.parametrize("kind", ["OutOfMemoryError", "AcceleratorError"])
def test_the_end_of_memory_is_told_with_the_knobs(host, gpu, node_classes, monkeypatch, kind):
    first = "CUDA out of memory. Tried to allocate 20.00 GiB."
    error = getattr(torch, kind)(f"{first}\nof which 3 are free")

    def execute(self, views, size, preset):
        raise error

    node_class = node_classes["AP3D_RenderViews"]
    monkeypatch.setattr(node_class, "execute", host.plain_torch(execute))
    with pytest.raises(torch.cuda.OutOfMemoryError) as told:  # what makes the host unload its models
        node_class().execute(views=None, size=1024, preset="turntable")
    assert str(told.value).startswith(
        f"AP3D_RenderViews: out of memory on cuda:0 ({first}). To take less, lower `size`"
    )
    assert "or choose a smaller `preset`." in str(told.value) and told.value.__cause__ is error
    assert gpu.memory == ["emptied"]


def test_other_errors_stay_as_they_are(host, gpu):
    error = RuntimeError("mat1 and mat2")

    class Node:
        @host.plain_torch
        def execute(self):
            raise error

    with pytest.raises(RuntimeError) as told:
        Node().execute()
    assert told.value is error


def test_the_files_of_one_run_have_one_number(host, comfyui, monkeypatch, tmp_path):
    """The counter of ComfyUI goes on with every file of a name, whatever its suffix."""
    run = types.SimpleNamespace(prompt_id="first")
    utilities = types.ModuleType("comfy_execution.utils")
    utilities.get_executing_context = lambda: run
    monkeypatch.setitem(sys.modules, utilities.__name__, utilities)

    def counted(prefix, folder):
        numbers = [int(file.name.split("_")[-2]) for file in Path(folder).glob(f"{prefix}_*")]
        return folder, prefix, max(numbers, default=0) + 1, "", prefix

    sys.modules["folder_paths"].get_save_image_path = counted

    def save(prefix, suffix):
        target = host.save_path("AP3D_X", prefix, suffix)
        target.path.touch()
        return target.filename

    assert [save("avatar", ".safetensors"), save("avatar", ".ply"), save("sheet", ".png")] == [
        "avatar_00001_.safetensors", "avatar_00001_.ply", "sheet_00001_.png"
    ]  # fmt: skip
    run.prompt_id = "second"
    assert [save("avatar", ".ply"), save("sheet", ".png")] == ["avatar_00002_.ply", "sheet_00002_.png"]
    # Nothing is written over, in the same run either.
    assert [save("avatar", ".ply"), save("sheet", ".png")] == ["avatar_00003_.ply", "sheet_00003_.png"]
    assert save("avatar", ".ply") == "avatar_00004_.ply"


def test_a_host_that_keeps_no_metadata_gets_none(host, comfyui, monkeypatch):
    options = types.ModuleType("comfy.cli_args")
    options.args = types.SimpleNamespace(disable_metadata=False)
    monkeypatch.setitem(sys.modules, options.__name__, options)
    given = ({"1": {"class_type": "AP3D_X"}}, {"workflow": {"nodes": []}})
    assert host.graph_texts(*given) == {"workflow": '{"nodes": []}', "prompt": '{"1": {"class_type": "AP3D_X"}}'}
    assert host.graph_texts(None, None) == {}
    options.args.disable_metadata = True
    assert host.graph_texts(*given) == {}
