"""What a node class declares: inputs with their widgets, outputs, and the host features it relies on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
# The frontend adds a control widget to integers of these names even when the class does not ask for one.
SEED_NAMES = frozenset({"seed", "noise_seed"})

Registry = Mapping[str, type]


@dataclass(frozen=True)
class InputDefinition:
    """One entry of INPUT_TYPES. `kind` is the type string, "COMBO" for lists; `choices` are a combo's values."""

    name: str
    kind: str
    options: Mapping[str, Any]
    required: bool
    choices: tuple[Any, ...] | None = None

    @property
    def is_widget(self) -> bool:
        """Whether the frontend draws a widget for it, which then has an entry in `widgets_values`."""
        forced = self.options.get("forceInput") or self.options.get("defaultInput")
        return self.kind in WIDGET_TYPES and not forced

    @property
    def is_seed(self) -> bool:
        """Whether `--seed` sets it."""
        return self.kind == "INT" and (self.name in SEED_NAMES or bool(self.options.get("control_after_generate")))

    @property
    def file_input(self) -> Mapping[str, Any]:
        """What it says of the files that it names (see `file_inputs`); empty for every other input."""
        return self.options.get("file_input", {})

    @property
    def companion_widgets(self) -> int:
        """Extra entries in `widgets_values` after this one: control_after_generate, its filter, an upload button."""
        control = self.options.get("control_after_generate", self.kind == "INT" and self.name in SEED_NAMES)
        companions = (2 if self.kind == "COMBO" else 1) if control else 0
        return companions + (1 if self.options.get("image_upload") else 0)

    @property
    def default(self) -> Any:
        """The value a fresh widget shows."""
        if "default" in self.options:
            return self.options["default"]
        if self.choices is not None:
            return self.choices[0] if self.choices else None
        return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}.get(self.kind)


@dataclass(frozen=True)
class NodeDefinition:
    """A node class, read once."""

    class_type: str
    node_class: type
    inputs: tuple[InputDefinition, ...]
    hidden: Mapping[str, str]
    return_types: tuple[str, ...]
    return_names: tuple[str, ...]
    is_output: bool

    def input(self, name: str) -> InputDefinition | None:
        """The declared input of that name, if there is one."""
        return next((entry for entry in self.inputs if entry.name == name), None)

    @property
    def widgets(self) -> tuple[InputDefinition, ...]:
        """Inputs with a widget, in the order of `widgets_values`."""
        return tuple(entry for entry in self.inputs if entry.is_widget)


def define_node(class_type: str, node_class: type) -> NodeDefinition:
    """Read a V1 node class. `InvalidInput` names what the headless runner does not support."""
    declared = node_class.INPUT_TYPES()  # type: ignore[attr-defined]
    inputs = tuple(
        _define_input(class_type, name, entry, required=section == "required")
        for section in ("required", "optional")
        for name, entry in declared.get(section, {}).items()
    )
    _refuse_unsupported(class_type, node_class, inputs)
    return_types = tuple(getattr(node_class, "RETURN_TYPES", ()))
    return NodeDefinition(
        class_type=class_type,
        node_class=node_class,
        inputs=inputs,
        hidden=dict(declared.get("hidden", {})),
        return_types=return_types,
        return_names=tuple(getattr(node_class, "RETURN_NAMES", return_types)),
        is_output=bool(getattr(node_class, "OUTPUT_NODE", False)),
    )


def _define_input(class_type: str, name: str, entry: Any, required: bool) -> InputDefinition:
    if not isinstance(entry, tuple) or not 1 <= len(entry) <= 2:
        raise InvalidInput(f"{class_type}: INPUT_TYPES declares '{name}' as {entry!r}, expected (type, options).")
    kind, options = entry[0], entry[1] if len(entry) == 2 else {}
    if isinstance(kind, (list, tuple)):
        return InputDefinition(name, "COMBO", options, required, tuple(kind))
    if kind == "COMBO":
        return InputDefinition(name, kind, options, required, tuple(options.get("options", ())))
    return InputDefinition(name, str(kind), options, required)


def _refuse_unsupported(class_type: str, node_class: type, inputs: tuple[InputDefinition, ...]) -> None:
    features = {
        "INPUT_IS_LIST": bool(getattr(node_class, "INPUT_IS_LIST", False)),
        "OUTPUT_IS_LIST": any(getattr(node_class, "OUTPUT_IS_LIST", ())),
        "lazy inputs": any(entry.options.get("lazy") for entry in inputs),
    }
    for feature, used in features.items():
        if used:
            raise InvalidInput(f"{class_type}: uses {feature}, which needs ComfyUI; the headless runner has none.")


def types_fit(given: str, wanted: str) -> bool:
    """Whether an output of type `given` may feed an input of type `wanted`; both may list types with commas.

    As strict as ComfyUI: "*" fits nothing but "*", unless a node's type string overrides `!=`.
    """
    if not given != wanted:
        return True
    return bool({part.strip() for part in given.split(",")} & {part.strip() for part in wanted.split(",")})
