// Files from the user's computer: a button and a drop on the node bring them into ComfyUI's input folder, together with
// what lies beside them (materials, pictures). Which inputs take files, and of which kinds, the nodes say themselves:
// `file_input: {suffixes, upload: {label, folder, companions, prefix}}` (nodes/host/folders.py).
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const suffixOf = (name) => name.slice(name.lastIndexOf(".")).toLowerCase();
const stemOf = (name) => name.slice(0, name.lastIndexOf("."));

function targetsOf(node) {
  const input = node.constructor.nodeData?.input ?? {};
  const all = Object.entries({ ...input.required, ...input.optional });
  return all.flatMap(([name, spec]) => {
    const { suffixes, upload } = spec?.[1]?.file_input ?? {};
    return upload ? [{ widget: node.widgets?.find((widget) => widget.name === name), suffixes, ...upload }] : [];
  });
}

function tell(detail) {
  const toast = app.extensionManager?.toast;
  if (toast) toast.add({ severity: "warn", summary: "AnimPortrait3D", detail, life: 10000 });
  else alert(detail);
}

async function send(file, subfolder) {
  const body = new FormData();
  body.append("image", file);
  body.append("type", "input");
  body.append("subfolder", subfolder);
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (answer.status === 413) throw new Error(`${file.name} is larger than this ComfyUI takes (--max-upload-size).`);
  if (answer.status !== 200) throw new Error(`${file.name} was not taken: ${answer.status} ${answer.statusText}.`);
  const saved = await answer.json();
  return saved.subfolder ? `${saved.subfolder}/${saved.name}` : saved.name;
}

// Files that name each other keep their names: each set has a folder of its own, which nothing was uploaded to before.
function folderOf({ widget, main, beside, folder: common, prefix }) {
  if (!beside.length) return common;
  const taken = (name) => widget.options.values.some((value) => value.startsWith(`${prefix}${name}/`));
  const wanted = `${common}/${stemOf(main.name)}`;
  let folder = wanted;
  for (let number = 2; taken(folder); number++) folder = `${wanted}_${number}`;
  return folder;
}

// Uploads what fits the inputs of a node; false if nothing does.
async function uploadTo(node, files) {
  const used = new Set();
  const chosen = targetsOf(node).filter((target) => {
    // A kind that several inputs take goes to the first of them.
    target.main = files.find((file) => target.suffixes.includes(suffixOf(file.name)) && !used.has(file));
    if (!target.main || !target.widget) return false;
    target.beside = files.filter((file) => target.companions.includes(suffixOf(file.name)));
    [target.main, ...target.beside].forEach((file) => used.add(file));
    return true;
  });
  if (!chosen.length) return false;
  try {
    for (const target of chosen) {
      const folder = folderOf(target);
      for (const file of target.beside) await send(file, folder);
      target.value = target.prefix + (await send(target.main, folder));
    }
    await app.refreshComboInNodes(); // the choices are the server's
    for (const { widget, value } of chosen) {
      widget.value = value;
      widget.callback?.(value);
    }
  } catch (error) {
    tell(error.message);
  }
  const left = files.filter((file) => !used.has(file)).map((file) => file.name);
  if (left.length) tell(`Not uploaded: ${left.join(", ")}. Choose one file at a time, with what belongs to it.`);
  node.setDirtyCanvas?.(true, true);
  return true;
}

function addButton(node, targets) {
  const chooser = document.createElement("input");
  chooser.type = "file";
  chooser.multiple = true;
  chooser.accept = targets.flatMap((target) => [...target.suffixes, ...target.companions]).join(",");
  chooser.onchange = async () => {
    const files = [...chooser.files];
    chooser.value = ""; // so that the same file can be chosen again
    if (files.length && !(await uploadTo(node, files))) tell(`Expected one of ${targets[0].suffixes.join(", ")}.`);
  };
  // Behind all inputs, and not serialized: the stored widget values of a graph belong to the inputs alone.
  const button = node.addWidget("button", targets[0].label, null, () => chooser.click(), { serialize: false });
  button.serialize = false;
}

app.registerExtension({
  name: "animportrait3d.upload",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AP3D_")) return;
    const targets = targetsOf(node);
    if (!targets.length) return;
    addButton(node, targets);
    node.onDragOver = (event) => [...(event?.dataTransfer?.items ?? [])].some((item) => item.kind === "file");
    // What fits no input, such as a picture with a graph in it, goes on to the canvas.
    node.onDragDrop = (event) => uploadTo(node, [...(event?.dataTransfer?.files ?? [])]);
  },
});
