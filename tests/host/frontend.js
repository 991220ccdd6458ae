// usage: node frontend.js URL GRAPHS.json OUTPUT.json [SCREENSHOT_FOLDER]
// Opens each graph of {name: graph} in ComfyUI's frontend and writes {name: {prompt, values, missing, errors}}.
const fs = require("fs");
const path = require("path");
const { withBrowser, openPage } = require("./frontend_page.js");

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

async function main() {
  const [url, graphsFile, outputFile, screenshots] = process.argv.slice(2);
  await withBrowser(async (page, errors) => {
    await openPage(page, url);
    const results = {};
    for (const [name, graph] of Object.entries(JSON.parse(fs.readFileSync(graphsFile, "utf8")))) {
      errors.length = 0;
      const opened = await openGraph(page, graph);
      results[name] = { ...opened, errors: [...errors] };
      if (screenshots) {
        await page.waitForTimeout(800);
        await page.screenshot({ path: path.join(screenshots, `${name}.png`) });
      }
    }
    fs.writeFileSync(outputFile, JSON.stringify(results));
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
