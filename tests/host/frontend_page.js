// What the scripts of the frontend tests share: a browser with ComfyUI's page in it, ready for a graph.
const { withChromium, NO_GL } = require("./chromium.js");

const NODES2 = "Comfy.VueNodes.Enabled";
const MINIMAP = "Comfy.Minimap.Visible"; // it lies over nodes in the lower right corner
const PATIENCE = Number(process.env.FRONTEND_SECONDS || 90) * 1000;

// What is none of ours: files that no server here has, and what the browser says of its own.
const FOREIGN =
  /Failed to load resource|ERR_INTERNET_DISCONNECTED|net::ERR_|Content Security Policy|preload|api\.comfy\.org/;

// Gives `page` and its list of errors to `work`, and closes the browser behind it.
async function withBrowser(work, graphics = NO_GL) {
  const look = async (page) => {
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error.stack || error.message)));
    page.on("console", (message) => {
      if (message.type() === "error" && !FOREIGN.test(message.text())) errors.push(`${message.text()} (console)`);
    });
    await work(page, errors);
  };
  await withChromium(look, { viewport: { width: 1600, height: 1000 }, args: graphics });
}

async function openPage(page, url) {
  page.setDefaultTimeout(PATIENCE);
  await page.goto(url, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(() => window.app?.extensionManager && window.app.graph && window.app.canvas, null, {
    timeout: PATIENCE,
  });
  // The page loads a graph of its own some time after the application exists; ours must come after it.
  await page.waitForTimeout(2500);
  // The dialog of templates at the first visit: a frontend that is asked for it while it closes shows none.
  await page.keyboard.press("Escape");
  await page.locator('[role="dialog"]').first().waitFor({ state: "hidden", timeout: PATIENCE });
}

// "classic" or "nodes2", for the pages that are opened from now on.
async function useRenderer(url, renderer) {
  const settings = { [NODES2]: renderer === "nodes2", [MINIMAP]: false };
  for (const [name, value] of Object.entries(settings)) {
    await fetch(`${url}/api/settings/${name}`, { method: "POST", body: JSON.stringify(value) });
  }
}

// All of a graph on the screen.
async function openGraph(page, graph) {
  await page.evaluate(async (graph) => {
    await window.app.loadGraphData(graph, true, true, "test");
    const { ds, canvas } = window.app.canvas;
    const nodes = window.app.graph._nodes ?? window.app.graph.nodes;
    const edge = (axis, end) => nodes.map((node) => node.pos[axis] + end * node.size[axis]);
    const [left, top] = [Math.min(...edge(0, 0)), Math.min(...edge(1, 0))];
    const [width, height] = [Math.max(...edge(0, 1)) - left, Math.max(...edge(1, 1)) - top];
    const room = canvas.getBoundingClientRect();
    // Bars of the page lie over the left and the upper edge, its messages in the upper right corner.
    // Nodes 2.0 makes nodes higher than the graph says.
    ds.scale = Math.min(1, (room.width - 120) / width, (room.height - 280) / (1.25 * height));
    ds.offset = [90 / ds.scale - left, 250 / ds.scale - top];
    window.app.canvas.setDirty(true, true);
  }, graph);
  await page.waitForTimeout(500);
}

// Queues the graph, as the button does, and waits for its end.
async function run(page) {
  await page.evaluate(async (patience) => {
    const { api } = await import(new URL("scripts/api.js", location.href).href);
    const ended = new Promise((resolve, reject) => {
      for (const kind of ["execution_success", "execution_error"]) api.addEventListener(kind, resolve, { once: true });
      setTimeout(() => reject(new Error("the run did not end")), patience);
    });
    await window.app.queuePrompt(0, 1);
    await ended;
  }, PATIENCE);
}

module.exports = { withBrowser, openPage, openGraph, useRenderer, run, PATIENCE };
