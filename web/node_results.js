// Shows what a node of this pack returned: its text (`ui: {text: [...]}`) in a read-only field, and its pictures in place
// of the last picture of its progress, which the frontend would go on showing.
import { app } from "../../scripts/app.js";

const TEXT_WIDGET = "ap3d_text_output";
const PICTURE_WIDGET = "$$canvas-image-preview"; // the frontend's own
const LINE_HEIGHT = 13;
const MOST_LINES = 8;
const BORDERS = 28; // the margins around a DOM widget, and the padding within
const CHARACTER_WIDTH = 6.1; // of the monospaced font below

// How many lines the text takes at the node's width. Words that do not fit leave some of a line empty: hence the slack.
function lineCount(text, node) {
  const perLine = Math.max(1, Math.floor((0.95 * (node.size[0] - BORDERS)) / CHARACTER_WIDTH));
  return text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / perLine)), 0);
}

function textWidget(node) {
  const existing = node.widgets?.find((widget) => widget.name === TEXT_WIDGET);
  if (existing) return existing;
  const element = document.createElement("textarea");
  element.readOnly = true;
  element.wrap = "soft";
  Object.assign(element.style, { fontFamily: "monospace", fontSize: "10px", resize: "none", opacity: "0.85" });
  const height = () => BORDERS + LINE_HEIGHT * Math.min(lineCount(element.value, node), MOST_LINES);
  const options = { serialize: false, hideOnZoom: false, getMinHeight: height, getMaxHeight: height };
  // Not serialized: the stored widget values of a graph belong to the node's inputs alone.
  const widget = node.addDOMWidget(TEXT_WIDGET, "ap3d_text", element, options);
  widget.serialize = false;
  widget.textElement = element;
  return widget;
}

function showText(node, lines) {
  const widget = textWidget(node);
  widget.textElement.value = lines.join("\n");
  // Pictures fill what is left below all widgets that come before them.
  const picture = node.widgets.findIndex((other) => other.name === PICTURE_WIDGET);
  const own = node.widgets.indexOf(widget);
  if (picture >= 0 && picture < own) node.widgets.splice(picture, 0, ...node.widgets.splice(own, 1));
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
}

function forgetProgressPicture(node) {
  const inSubgraph = node.graph && !node.graph.isRootGraph;
  delete app.nodePreviewImages[inSubgraph ? `${node.graph.id}:${node.id}` : String(node.id)];
  node.preview = undefined;
  node.images = undefined; // so that the result's are loaded at the next drawing
}

app.registerExtension({
  name: "animportrait3d.nodeResults",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AP3D_")) return;
    const onExecuted = node.onExecuted;
    node.onExecuted = function (output, ...rest) {
      onExecuted?.call(this, output, ...rest);
      if (output?.images?.length) forgetProgressPicture(this);
      if (output?.text?.length) showText(this, output.text.join("\n").split("\n"));
    };
  },
});
