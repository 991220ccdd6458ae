// The avatar alive on its node: the page that AP3D_PreviewAvatar wrote into the temporary folder, in a frame. What its user
// chooses is kept in the node's widgets `pose` and `camera`, so that it is saved with the graph and goes to the next run.
//
// The page is fetched and given to the frame as text: ComfyUI's /view lets no browser open HTML, and under --offline its
// content security policy allows no frame with an address. It is sandboxed, so that it has an origin of its own and reaches
// nothing of ComfyUI's; the two talk through a port that the frame gets when it is loaded (export/page/bridge.js).
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const NODE = "AP3D_PreviewAvatar";
const PAGE = "ap3d_page"; // the widget, the entry of the result, and the property that saves the page's name
const PAGE_NAME = /^ap3d_page_[0-9a-f]{32}\.html$/;
const CHOSEN = ["pose", "camera"];
const SHOWN = [...CHOSEN, "width", "height", "background"];
const SHADES = { white: 1, grey: 0.5, black: 0 }; // nodes/views.py
const LONGEST = 20000; // characters of a pose
const MIN_HEIGHT = 360;
const SETTLED = 400; // milliseconds without a change, after which there is something to undo
const EMPTY = "Run the graph to see the avatar here.";

const widgetNamed = (node, name) => node.widgets?.find((widget) => widget.name === name);

// The object of a JSON text; of any other text nothing: the run says what is wrong with it.
function objectOf(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

function captureChange() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

function boxElement() {
  const element = document.createElement("div"), words = document.createElement("div");
  element.className = "ap3d-avatar";
  Object.assign(element.style, { position: "relative", minHeight: `${MIN_HEIGHT}px`, overflow: "hidden", borderRadius: "6px" });
  Object.assign(words.style, { position: "absolute", inset: 0, padding: "12px", font: "12px sans-serif", opacity: 0.8 });
  words.textContent = EMPTY;
  element.append(words);
  return { element, words };
}

// One node's frame.
class AvatarFrame {
  constructor(node) {
    Object.assign(this, { node, ...boxElement(), name: "", frame: null, port: null, writing: false, timer: 0 });
  }

  // Shows a page of the temporary folder; the one that is on show already stays as it is.
  async show(name) {
    if (!PAGE_NAME.test(name) || name === this.name) return;
    this.drop("Opening the avatar ...");
    this.name = name;
    try {
      const answer = await api.fetchApi(`/view?${new URLSearchParams({ filename: name, subfolder: "", type: "temp" })}`);
      if (answer.status !== 200) throw new Error(answer.status === 404 ? EMPTY : `The avatar's page was not sent: ${answer.status}.`);
      const text = await answer.text();
      if (this.name === name) this.open(text);
    } catch (error) {
      if (this.name === name) this.drop(error.message);
    }
  }

  open(text) {
    const frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-scripts allow-downloads");
    frame.title = "Avatar";
    Object.assign(frame.style, { position: "absolute", inset: 0, width: "100%", height: "100%", border: 0 });
    // Again whenever the frontend moves the element to another place of the page.
    frame.addEventListener("load", () => this.connect());
    frame.srcdoc = text;
    this.frame = frame;
    this.element.append(frame);
  }

  connect() {
    if (!this.frame?.contentWindow) return;
    const { port1, port2 } = new MessageChannel();
    this.port?.close();
    this.port = port1;
    port1.onmessage = ({ data }) => this.hear(data);
    // A sandboxed page has no origin that could be named; this carries nothing but the port.
    this.frame.contentWindow.postMessage({ kind: "ap3d-node" }, "*", [port2]);
    this.tell();
  }

  // What stands in the node's widgets.
  tell() {
    if (this.writing || !this.port) return;
    const [pose, camera, width, height, background] = SHOWN.map((name) => widgetNamed(this.node, name)?.value);
    const shade = SHADES[background] ?? 1;
    this.port.postMessage({ pose: objectOf(pose), camera: objectOf(camera), width, height, background: [shade, shade, shade] });
  }

  hear(said) {
    if (said?.released) {
      this.frame?.blur(); // so that the keys are the graph's again
      return;
    }
    this.writing = true;
    for (const name of CHOSEN) {
      const widget = widgetNamed(this.node, name), text = said?.[name];
      if (!widget || typeof text !== "string" || text.length > LONGEST || text === widget.value) continue;
      widget.value = text;
      widget.callback?.(text);
    }
    this.writing = false;
    clearTimeout(this.timer);
    this.timer = setTimeout(captureChange, SETTLED);
  }

  drop(words) {
    clearTimeout(this.timer);
    this.port?.close();
    this.frame?.remove();
    Object.assign(this, { port: null, frame: null, name: "" });
    this.words.textContent = words;
  }
}

// `name` of an object, called after what is there already.
function after(object, name, work) {
  const before = object[name];
  object[name] = function (...given) {
    const answer = before?.apply(this, given);
    work(...given);
    return answer;
  };
}

app.registerExtension({
  name: "animportrait3d.previewAvatar",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const avatar = new AvatarFrame(node);
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => MIN_HEIGHT };
    const widget = node.addDOMWidget(PAGE, PAGE, avatar.element, options);
    widget.serialize = false; // the stored widget values of a graph belong to the node's inputs alone
    for (const name of CHOSEN) widgetNamed(node, name).advanced = true; // the canvas asks the widget, not its options
    for (const name of SHOWN) after(widgetNamed(node, name), "callback", () => avatar.tell());
    after(node, "onExecuted", (output) => {
      const name = output?.[PAGE]?.[0]?.filename;
      node.properties[PAGE] = name ?? "";
      if (name) avatar.show(name);
      else avatar.drop("There is no page of this avatar.");
    });
    after(node, "onConfigure", () => avatar.show(node.properties?.[PAGE] ?? ""));
    after(node, "onRemoved", () => avatar.drop(""));
    const [width, height] = node.computeSize();
    node.setSize([Math.max(width, 400), height]);
  },
});
