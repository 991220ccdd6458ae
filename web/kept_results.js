// Shows on nodes of this pack what they gave when they ran last, where the host does not run them again.
//
// A host tells of results when they are made. A page that was loaded anew, or another graph with the same first steps,
// would show nothing on a node that is kept; and where a host keeps several results of a node, the wrong one. The history
// of the host has them.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodesTo } from "./node_results.js";

const FILM_WIDGET = "video-preview"; // the frontend's own
const MOST_RUNS = 50; // of the history, the last ones
const numbers = new Map(); // all that a result depends on -> a number
const shown = new WeakMap(); // node of the page -> number of the result that it shows
let running = Promise.resolve({}); // of the prompt that runs: {execution id: number}

// {execution id: number}; nodes with the same kind and inputs, in whatever graph, have the same number.
function numbersOf(prompt) {
  const found = {};
  const numberOf = (id) => {
    if (found[id] === undefined) {
      const inputs = Object.entries(prompt[id].inputs).map(([name, value]) =>
        Array.isArray(value) && value[0] in prompt ? [name, { of: numberOf(value[0]), output: value[1] }] : [name, value],
      );
      const key = JSON.stringify([prompt[id].class_type, inputs.sort(([one], [other]) => (one < other ? -1 : 1))]);
      if (!numbers.has(key)) numbers.set(key, numbers.size);
      found[id] = numbers.get(key);
    }
    return found[id];
  };
  Object.keys(prompt).forEach(numberOf);
  return found;
}

async function ask(path) {
  return (await api.fetchApi(path)).json();
}

// In the API format; null if the host has forgotten it.
async function promptOf(id) {
  const { queue_running } = await ask("/queue");
  const entry = queue_running.find((one) => one[1] === id) ?? (await ask(`/history/${id}`))[id]?.prompt;
  return entry?.[2] ?? null;
}

// {number: output} of all nodes in the last runs.
async function knownOutputs() {
  const found = {};
  for (const { prompt, outputs } of Object.values(await ask(`/history?max_items=${MOST_RUNS}`))) {
    const numbered = numbersOf(prompt[2]);
    for (const [id, output] of Object.entries(outputs)) if (id in numbered) found[numbered[id]] = output;
  }
  return found;
}

async function showKept(promptId, kept) {
  const prompt = await promptOf(promptId);
  if (!prompt) return {};
  const wanted = numbersOf(prompt);
  const ours = kept.filter((id) => prompt[id]?.class_type.startsWith("AP3D_"));
  const lacking = ours.filter((id) => shown.get(nodesTo(id).at(-1)) !== wanted[id]);
  const outputs = lacking.length ? await knownOutputs() : {};
  for (const id of lacking) {
    const output = outputs[wanted[id]];
    // As if the host had told of it: the frontend and all extensions do what they do then.
    if (output) api.dispatchCustomEvent("executed", { node: id, display_node: id, output, prompt_id: promptId });
  }
  return wanted;
}

app.registerExtension({
  name: "animportrait3d.keptResults",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AP3D_")) return;
    const addDOMWidget = node.addDOMWidget;
    // The frontend sends the player of a film as an input of its node, which would be another one then, and run again.
    node.addDOMWidget = function (name, type, element, options) {
      const own = name === FILM_WIDGET ? { ...options, serialize: false } : options;
      return addDOMWidget.call(this, name, type, element, own);
    };
  },
});

api.addEventListener("execution_cached", ({ detail }) => {
  running = showKept(detail.prompt_id, detail.nodes).catch((error) => {
    console.warn("AnimPortrait3D: results that the host keeps are not shown:", error);
    return {};
  });
});
api.addEventListener("executed", async ({ detail }) => {
  const id = detail.display_node ?? detail.node;
  const node = nodesTo(id).at(-1);
  const number = (await running)[id];
  if (node && number !== undefined) shown.set(node, number);
});
