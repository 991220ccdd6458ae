// usage: node frontend_shipped.js URL JOB.json OUTPUT_FOLDER
// Runs a graph with its page open and keeps what the page shows before and after, for somebody to look at.
// JOB: {name, graph, prompt, renderers: ["classic", "nodes2"]}; what runs is `prompt`, the graph with other values.
// OUTPUT_FOLDER gets run.json, {id, errors}: the id of the first run; and NAME_RENDERER_before.png, NAME_RENDERER_after.png.
const fs = require("fs");
const path = require("path");
const { withBrowser, openPage, openGraph, useRenderer } = require("./frontend_page.js");

// Queues `prompt` as the page queues the graph that it shows, and waits for its end; the id of the run.
async function runPrompt(page, prompt, graph) {
  return page.evaluate(async ({ prompt, graph }) => {
    const { api } = await import(new URL("scripts/api.js", location.href).href);
    const ended = new Promise((resolve) => {
      for (const kind of ["execution_success", "execution_error"]) api.addEventListener(kind, resolve, { once: true });
    });
    const { prompt_id } = await api.queuePrompt(0, { output: prompt, workflow: graph });
    await ended;
    return prompt_id;
  }, { prompt, graph });
}

async function main() {
  const [url, jobFile, folder] = process.argv.slice(2);
  const { name, graph, prompt, renderers } = JSON.parse(fs.readFileSync(jobFile, "utf8"));
  await withBrowser(async (page, errors) => {
    const ids = [];
    for (const renderer of renderers) {
      const keep = (moment) => page.screenshot({ path: path.join(folder, `${name}_${renderer}_${moment}.png`) });
      await useRenderer(url, renderer);
      await openPage(page, url);
      await openGraph(page, graph);
      await keep("before");
      ids.push(await runPrompt(page, prompt, graph));
      await page.waitForTimeout(3000); // pictures and films arrive
      await keep("after");
    }
    fs.writeFileSync(path.join(folder, "run.json"), JSON.stringify({ id: ids[0], errors }));
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
