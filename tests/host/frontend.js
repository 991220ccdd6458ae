// usage: node frontend.js URL GRAPHS.json OUTPUT.json [SCREENSHOT_FOLDER]
// Opens each graph of {name: graph} in ComfyUI's frontend and writes {name: {prompt, values, missing, errors, shown}}.
const fs = require("fs");
const os = require("os");
const path = require("path");
const { chromium } = require("playwright-core");

const EXECUTABLE = process.env.CHROMIUM || "chromium";

async function openGraph(page, graph) {
  return page.evaluate(async (graph) => {
    await window.app.loadGraphData(graph, true, true, "test");
    const prompt = await window.app.graphToPrompt();
    const nodes = window.app.graph._nodes ?? window.app.graph.nodes;
    const saved = window.app.graph.serialize().nodes.map((node) => [node.id, node.widgets_values ?? []]);
    const values = Object.fromEntries(saved);
    return { prompt: prompt.output, values, missing: nodes.filter((node) => node.has_errors).map((node) => node.type) };
  }, graph);
}

// What each node of the pack shows after a picture of its progress and then a result: three lines and a picture.
async function showResults(page) {
  return page.evaluate(() => {
    const shown = {};
    const size = () => ({ minHeight: 220, minWidth: 1 }); // as the frontend's own widget for pictures
    for (const node of window.app.graph._nodes ?? window.app.graph.nodes) {
      if (!node.comfyClass?.startsWith("AP3D_")) continue;
      node.addCustomWidget({ name: "$$canvas-image-preview", type: "custom", draw() {}, computeLayoutSize: size });
      window.app.nodePreviewImages[node.id] = ["blob:progress"];
      node.preview = ["blob:progress"];
      const before = node.size[1];
      node.onExecuted({ images: [{ filename: "a.png", subfolder: "", type: "temp" }], text: ["one\ntwo", "three"] });
      shown[node.id] = {
        progress: window.app.nodePreviewImages[node.id] ?? node.preview ?? null,
        text: node.widgets.find((widget) => widget.name === "ap3d_text_output")?.textElement.value,
        last: node.widgets.at(-1).name,
        grew: node.size[1] - before,
      };
    }
    return shown;
  });
}

async function main() {
  const [url, graphsFile, outputFile, screenshots] = process.argv.slice(2);
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "ap3d-frontend-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: EXECUTABLE,
    headless: true,
    viewport: { width: 1600, height: 1000 },
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"],
  });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error.message)));
    await page.goto(url, { waitUntil: "domcontentloaded" });
    await page.waitForFunction(() => window.app?.extensionManager && window.app.graph && window.app.canvas, null, {
      timeout: 90000,
    });
    // The page loads a graph of its own some time after the application exists; ours must come after it.
    await page.waitForTimeout(2500);
    await page.keyboard.press("Escape"); // the dialog of templates at the first visit
    const results = {};
    for (const [name, graph] of Object.entries(JSON.parse(fs.readFileSync(graphsFile, "utf8")))) {
      errors.length = 0;
      const opened = await openGraph(page, graph);
      results[name] = { ...opened, shown: await showResults(page), errors: [...errors] };
      if (screenshots) {
        await page.waitForTimeout(800);
        await page.screenshot({ path: path.join(screenshots, `${name}.png`) });
      }
    }
    fs.writeFileSync(outputFile, JSON.stringify(results));
  } finally {
    await context.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
