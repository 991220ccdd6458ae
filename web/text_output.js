// Shows the text that a node of this pack returned (`ui: {text: [...]}`) in a read-only field on the node.
import { app } from "../../scripts/app.js";

const WIDGET_NAME = "ap3d_text_output";

function textWidget(node) {
  const existing = node.widgets?.find((widget) => widget.name === WIDGET_NAME);
  if (existing) return existing;
  const element = document.createElement("textarea");
  element.readOnly = true;
  element.wrap = "off";
  Object.assign(element.style, { fontFamily: "monospace", fontSize: "10px", resize: "none", opacity: "0.85" });
  // Not serialized: the stored widget values of a graph belong to the node's inputs alone.
  const widget = node.addDOMWidget(WIDGET_NAME, "ap3d_text", element, { serialize: false, hideOnZoom: false });
  widget.serialize = false;
  widget.textElement = element;
  node.setSize([node.size[0], Math.max(node.size[1], 260)]);
  return widget;
}

app.registerExtension({
  name: "animportrait3d.textOutput",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AP3D_")) return;
    const onExecuted = node.onExecuted;
    node.onExecuted = function (output, ...rest) {
      onExecuted?.call(this, output, ...rest);
      if (output?.text?.length) textWidget(this).textElement.value = output.text.join("\n");
    };
  },
});
