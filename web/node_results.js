// Shows on each node of this pack what its last run gave: the text of its result (`ui: {text: [...]}`) or the sentence of
// its error in a read-only field, and the pictures of its result where the frontend would go on showing progress.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const TEXT_WIDGET = "ap3d_text_output";
// The frontend's own: it makes them anew for what it shows next, so that they come after our text.
const PROGRESS_WIDGETS = ["$$canvas-image-preview", "$$node-text-preview"];
const LINE_HEIGHT = 13;
const MOST_LINES = 8; // for which a node grows
const MOST_LINES_WITH_ROOM = 60;
const BORDERS = 28; // the margins around a DOM widget, and the padding within
const CHARACTER_WIDTH = 6.1; // of the monospaced font below
const ERROR_COLOR = "#f05050"; // legible on dark and on light
const done = new WeakSet(); // nodes that have a result or an error, and the boxes around them, until they work again
const watched = new WeakSet();
let working = null; // execution id of the node that works

// How many lines the text takes at the node's width. Words that do not fit leave some of a line empty: hence the slack.
function lineCount(text, node) {
  const perLine = Math.max(1, Math.floor((0.95 * (node.size[0] - BORDERS)) / CHARACTER_WIDTH));
  return text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / perLine)), 0);
}

function widgetNamed(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

function textWidget(node) {
  const existing = widgetNamed(node, TEXT_WIDGET);
  if (existing) return existing;
  const element = document.createElement("textarea");
  element.readOnly = true;
  element.wrap = "soft";
  element.className = "ap3d-node-text";
  Object.assign(element.style, { fontFamily: "monospace", fontSize: "10px", resize: "none" });
  const height = (most) => BORDERS + LINE_HEIGHT * Math.min(lineCount(element.value, node), most);
  const getMinHeight = () => height(MOST_LINES);
  const getMaxHeight = () => height(MOST_LINES_WITH_ROOM);
  const options = { serialize: false, hideOnZoom: false, getMinHeight, getMaxHeight };
  // Not serialized: the stored widget values of a graph belong to the node's inputs alone.
  const widget = node.addDOMWidget(TEXT_WIDGET, "ap3d_text", element, options);
  widget.serialize = false;
  return widget;
}

function showText(node, text, isError) {
  const { element, options } = textWidget(node);
  element.value = text;
  element.dataset.error = isError ? "yes" : "";
  element.style.color = isError ? ERROR_COLOR : "";
  element.style.opacity = isError ? "1" : "0.85";
  // Nodes 2.0 does not ask for the height.
  element.style.minHeight = `${options.getMinHeight() - BORDERS + 8}px`;
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
}

// The sentence of an error stays until the graph runs again; the text of a result until there is another.
function forgetError(node) {
  const widget = widgetNamed(node, TEXT_WIDGET);
  if (widget?.element.dataset.error) node.removeWidget(widget);
}

// The node of an execution id ("7", or "3:7" for node 7 within the subgraph of node 3), after those that contain it.
export function nodesTo(executionId) {
  const found = [];
  let graph = app.rootGraph ?? app.graph?.rootGraph ?? app.graph;
  for (const id of String(executionId).split(":")) {
    const node = graph?.getNodeById(/^\d+$/.test(id) ? Number(id) : id);
    if (!node) return [];
    found.push(node);
    graph = node.subgraph;
  }
  return found;
}

// The frontend shows the last picture of a node's progress before the pictures of its result, until the node runs again,
// and has no public call to drop it. Hence its store of them by the private way; a frontend without that store shows
// what it would show of any other node.
function forgetProgress(node) {
  const vue = document.getElementById("vue-app")?.__vue_app__;
  const store = vue?.config?.globalProperties?.$pinia?._s?.get("nodeOutput");
  const key = !node.graph || node.graph.isRootGraph ? String(node.id) : `${node.graph.id}:${node.id}`;
  done.add(node);
  watchDrawing(node);
  if (store?.revokePreviewsByLocatorId) store.revokePreviewsByLocatorId(key);
  else if (store?.nodePreviewImages) delete store.nodePreviewImages[key]; // 1.27
  if (app.nodePreviewImages) delete app.nodePreviewImages[key];
  loadAnew(node);
}

// So that the pictures of the result are loaded at the next drawing.
function loadAnew(node) {
  node.preview = node.images = node.imgs = undefined;
  for (const name of PROGRESS_WIDGETS) {
    const widget = widgetNamed(node, name);
    if (widget) node.removeWidget(widget);
  }
  node.setDirtyCanvas?.(true, true);
}

// A progress picture that was still being loaded when the result came would be back at the next drawing; on the box of a
// subgraph, too, which shows those of the nodes in it.
function watchDrawing(node) {
  if (watched.has(node)) return;
  watched.add(node);
  const onDrawBackground = node.onDrawBackground;
  node.onDrawBackground = function (...given) {
    if (done.has(this) && this.imgs?.some((image) => image.src.startsWith("blob:"))) forgetProgress(this);
    return onDrawBackground?.apply(this, given);
  };
}

function finished(executionId, text, isError) {
  const nodes = nodesTo(executionId);
  if (!nodes.at(-1)?.comfyClass?.startsWith("AP3D_")) return;
  nodes.forEach(forgetProgress);
  if (text) showText(nodes.at(-1), text, isError);
}

// A node without pictures and text of its own ends without a message: its progress would stay.
function begins(executionId) {
  if (working != null && working !== executionId && !done.has(nodesTo(working).at(-1))) finished(working, "", false);
  working = executionId;
  if (working != null) nodesTo(working).forEach((node) => done.delete(node));
}

app.registerExtension({
  name: "animportrait3d.nodeResults",
  setup() {
    api.addEventListener("executing", ({ detail }) => begins(detail?.display_node ?? detail?.node ?? detail));
    api.addEventListener("executed", ({ detail }) => {
      finished(detail.display_node ?? detail.node, detail.output?.text?.join("\n"), false);
    });
    api.addEventListener("execution_error", ({ detail }) => {
      finished(detail.node_id, detail.exception_message?.trim(), true);
    });
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AP3D_")) return;
    const onExecutionStart = node.onExecutionStart;
    node.onExecutionStart = function (...given) {
      onExecutionStart?.apply(this, given);
      done.delete(this);
      forgetError(this);
    };
  },
});
