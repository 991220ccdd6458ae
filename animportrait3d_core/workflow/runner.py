"""Executes a prepared graph: one worker thread under inference mode, outputs cached by what went into them."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import hashlib
import json
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from ..files import temporary_directory
from ..fingerprints import fingerprint
from .context import RunContext, RunListener, activate, plain_context
from .definitions import NodeDefinition, Registry
from .graph import Link, PromptNode, is_ui_graph, prompt_to_json, read_graph_file
from .prepare import Plan, prepare
from .report import NodeMeter, RunReport, WarningCollector, installed_versions, messages_of

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class RunSettings:
    """Everything about a run that is not in the graph. Folders default to those of the working directory."""

    output_directory: Path | None = None
    input_directory: Path | None = None
    models_directory: Path | None = None
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    device: str = "auto"
    # Keep the pictures that nodes show, in <output>/previews, instead of a temporary folder.
    keep_previews: bool = False
    # Hash every output and prove after each node that its inputs are as they were: slow, for tests.
    verify_values: bool = False


@dataclass(frozen=True)
class NodeResult:
    """What a node gave: its outputs, its `ui` dictionary, the metrics it reported, and its warnings."""

    outputs: tuple[Any, ...]
    ui: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class OutputCache:
    """Results of earlier nodes by the signature of their inputs. Hand the same one to several runs to reuse them."""

    def __init__(self) -> None:
        self._results: dict[str, NodeResult] = {}

    def get(self, signature: str) -> NodeResult | None:
        """The result of that signature, if there is one."""
        return self._results.get(signature)

    def put(self, signature: str, result: NodeResult) -> None:
        """Keep a result."""
        self._results[signature] = result


@dataclass(frozen=True)
class RunResult:
    """Results by node id, and the report (also in `report.json` of the output folder)."""

    nodes: Mapping[str, NodeResult]
    report: RunReport


def run(
    graph: str | Path | Mapping[str, Any],
    registry: Registry,
    settings: RunSettings | None = None,
    listener: RunListener | None = None,
    cache: OutputCache | None = None,
) -> RunResult:
    """Run a workflow (file, or its parsed JSON; UI or API format) with the node classes of `registry`.

    The graph is validated and the output folder tried before anything runs. Raises `InvalidInput` for a bad graph or
    folder, whatever a node raises, and `Interrupted` after Ctrl-C (a second Ctrl-C does not wait for the node).
    Results stay in memory; `report.json` is written when all nodes are done.
    """
    from ..runs import finished_runs_kept  # brings torch, which checking a graph does without

    settings = settings or RunSettings()
    parsed = read_graph_file(graph) if isinstance(graph, (str, Path)) else graph
    with _context(settings, listener) as context, activate(context):
        plan = prepare(parsed, registry, settings.overrides, settings.seed)
        _check_output_folder(context.output_directory)
        context.device = _device_name(settings.device)
        execution = _Execution(plan, context, cache or OutputCache(), parsed, settings.verify_values)
        started = time.perf_counter()
        with finished_runs_kept():
            results = _in_worker(execution.run, context)
            report = context.report
            report.total_seconds = round(time.perf_counter() - started, 3)
            report.device = context.device
            report.versions = installed_versions()
            report.write(context.output_directory / REPORT_FILE)
        return RunResult(results, report)


@contextlib.contextmanager
def _context(settings: RunSettings, listener: RunListener | None) -> Iterator[RunContext]:
    """The run's context; its temporary folder lives as long as the run unless previews are kept."""
    plain = plain_context()
    output = Path(settings.output_directory or plain.output_directory).absolute()
    with contextlib.ExitStack() as stack:
        if settings.keep_previews:
            temporary = output / "previews"
        else:
            temporary = stack.enter_context(temporary_directory())
        yield RunContext(
            output_directory=output,
            input_directory=Path(settings.input_directory or plain.input_directory).absolute(),
            models_directory=Path(settings.models_directory or plain.models_directory).absolute(),
            temp_directory=temporary,
            device=settings.device,
            listener=listener,
        )


def _check_output_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise InvalidInput(f"run: the output folder '{folder}' cannot be written ({error.strerror}).") from error


def _device_name(chosen: str) -> str:
    """The torch device of a `--device` value."""
    from ..devices import working_device

    return str(working_device("run", chosen))


def _in_worker(work: Callable[[], Any], context: RunContext) -> Any:
    """Run `work` in a thread of its own, as ComfyUI does, and turn Ctrl-C into a cancellation of the node."""
    outcome: dict[str, Any] = {}
    # An event, not Thread.join: a join that Ctrl-C interrupts takes the running thread for dead (CPython up to 3.12).
    done = threading.Event()

    def target() -> None:
        try:
            outcome["value"] = work()
        except BaseException as error:  # carried over to the calling thread, which raises it
            outcome["error"] = error
        finally:
            done.set()

    variables = contextvars.copy_context()
    thread = threading.Thread(target=variables.run, args=(target,), name="animportrait3d-run", daemon=True)
    thread.start()
    while not done.is_set():
        try:
            done.wait(timeout=0.1)
        except KeyboardInterrupt:
            if context.cancelled.is_set():
                raise
            context.cancelled.set()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


class _Execution:
    """The state of one run: results so far, signatures, fingerprints."""

    def __init__(
        self, plan: Plan, context: RunContext, cache: OutputCache, graph: Mapping[str, Any], verify_values: bool
    ) -> None:
        self.plan = plan
        self.context = context
        self.cache = cache
        self.workflow = graph if is_ui_graph(graph) else None
        self.verify_values = verify_values
        self.results: dict[str, NodeResult] = {}
        self.signatures: dict[str, str] = {}
        self.fingerprints: dict[str, str] = {}

    def run(self) -> dict[str, NodeResult]:
        import torch

        with torch.inference_mode():
            for index, node_id in enumerate(self.plan.order, start=1):
                self.context.check_interrupt()
                self._run_node(self.plan.prompt[node_id], index)
            self.context.check_interrupt()
        return self.results

    def _run_node(self, node: PromptNode, index: int) -> None:
        listener = self.context.listener
        if listener is not None:
            listener.node_started(node.node_id, node.class_type, index, len(self.plan.order))
        signature = self._signature(node)
        result = self.cache.get(signature)
        cached = result is not None
        self.context.begin_node(node.node_id)
        with NodeMeter() as meter:
            if result is None:
                result = self._execute(node)
                self.cache.put(signature, result)
                self.context.check_interrupt()
        for stage, metrics in result.metrics.items():
            self.context.report.add_metrics(stage, metrics)
        self.results[node.node_id] = result
        self.signatures[node.node_id] = signature
        messages = messages_of(result.ui, result.warnings)
        record = dataclasses.replace(
            meter.record(node.node_id, node.class_type),
            seconds_to_stop=round(self.context.seconds_to_stop, 3),
            messages=messages,
            warnings=result.warnings,
        )
        self.context.report.nodes.append(record)
        if self.verify_values:
            self._verify(node)
        if listener is not None:
            listener.node_finished(record, cached)

    def _execute(self, node: PromptNode) -> NodeResult:
        definition = self.plan.definitions[node.class_type]
        inputs = {
            name: self.results[value.node_id].outputs[value.slot] if isinstance(value, Link) else value
            for name, value in node.inputs.items()
        }
        # A node reports into an empty record, so that a cached result can report the same again.
        outer, self.context.report = self.context.report, RunReport()
        collector = WarningCollector()
        try:
            instance = definition.node_class()
            with collector:
                value = getattr(instance, definition.node_class.FUNCTION)(  # type: ignore[attr-defined]
                    **inputs, **self._hidden(definition, node)
                )
            metrics = self.context.report.metrics
        finally:
            self.context.report = outer
        outputs, ui = _split_result(node, definition, value)
        return NodeResult(outputs, ui, metrics, tuple(dict.fromkeys(collector.found)))

    def _hidden(self, definition: NodeDefinition, node: PromptNode) -> dict[str, Any]:
        values = {
            "UNIQUE_ID": node.node_id,
            "PROMPT": prompt_to_json(self.plan.prompt),
            "EXTRA_PNGINFO": {"workflow": self.workflow} if self.workflow is not None else {},
        }
        return {name: values.get(kind) for name, kind in definition.hidden.items()}

    def _signature(self, node: PromptNode) -> str:
        """Hash of everything that a node's result depends on: its type, constants, and the signatures upstream."""
        definition = self.plan.definitions[node.class_type]
        parts: list[Any] = [node.class_type, repr(definition.node_class)]
        if "UNIQUE_ID" in definition.hidden.values():
            parts.append(node.node_id)
        for name, value in sorted(node.inputs.items()):
            if isinstance(value, Link):
                parts.append([name, "link", self.signatures[value.node_id], value.slot])
            else:
                parts.append([name, "value", repr(value)])
        is_changed = getattr(definition.node_class, "IS_CHANGED", None)
        if is_changed is not None:
            constants = {name: None if isinstance(v, Link) else v for name, v in node.inputs.items()}
            change = is_changed(**constants, **self._hidden(definition, node))
            # NaN says "always run again": it equals nothing, itself included.
            parts.append(["changed", repr(change) if change == change else uuid.uuid4().hex])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _verify(self, node: PromptNode) -> None:
        """Prove that this node left its inputs as they were, then remember its own outputs."""
        for link in node.links().values():
            before = self.fingerprints[link.node_id]
            if fingerprint(self.results[link.node_id].outputs) != before:
                origin = self.plan.prompt[link.node_id]
                raise InvalidInput(f"{node.label}: changed the outputs of {origin.label} in place; outputs are shared.")
        self.fingerprints[node.node_id] = fingerprint(self.results[node.node_id].outputs)


def _split_result(node: PromptNode, definition: NodeDefinition, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Outputs and `ui` of what a V1 node returned: a tuple, or a dictionary with "result" and "ui"."""
    ui: dict[str, Any] = {}
    if isinstance(value, dict):
        if "expand" in value:
            raise InvalidInput(f"{node.label}: expands into further nodes, which needs ComfyUI.")
        ui, value = dict(value.get("ui", {})), value.get("result", ())
    outputs = () if value is None else tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(outputs) != len(definition.return_types):
        raise InvalidInput(
            f"{node.label}: gave {len(outputs)} outputs, its RETURN_TYPES declare {len(definition.return_types)}."
        )
    return outputs, ui
