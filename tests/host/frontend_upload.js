// usage: node frontend_upload.js URL JOB.json OUTPUT_FOLDER
// Brings files into nodes as a person does: by a drop on the node, or by its button and the dialog.
// JOB: {renderers, graph, uploads: [{node, widget, button, how: "drop" | "button", files: [path]}]}, widget: whose value
// tells that they have arrived. Writes chosen.json, {renderer: {chosen: [value], errors}}, and RENDERER_NUMBER.png.
const fs = require("fs");
const path = require("path");
const { withBrowser, openPage, openGraph, useRenderer, PATIENCE } = require("./frontend_page.js");

const valueOf = ({ node, widget }) =>
  window.app.graph.getNodeById(node).widgets.find((one) => one.name === widget).value;

// Where a person points at: the middle of the node's title, or of a widget that the canvas draws.
async function placeOf(page, upload) {
  return page.evaluate(({ node: id, button }) => {
    const node = window.app.graph.getNodeById(id);
    const { ds, canvas } = window.app.canvas;
    const room = canvas.getBoundingClientRect();
    const widget = node.widgets.find((one) => one.name === button);
    const y = button ? widget.last_y + 12 : -15;
    return {
      x: room.x + (node.pos[0] + node.size[0] / 2 + ds.offset[0]) * ds.scale,
      y: room.y + (node.pos[1] + y + ds.offset[1]) * ds.scale,
    };
  }, upload);
}

// The browser's own drag, with files from the disk.
async function drop(page, { node, files }) {
  const place = await placeOf(page, { node });
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "dragOver", "drop"]) {
    await session.send("Input.dispatchDragEvent", { type, ...place, data });
    await page.waitForTimeout(200); // the canvas finds out what it is over
  }
}

async function press(page, upload, renderer) {
  const chooser = page.waitForEvent("filechooser", { timeout: PATIENCE });
  if (renderer === "nodes2") {
    await page.locator(`[data-node-id="${upload.node}"]`).getByText(upload.button).click({ timeout: PATIENCE });
  } else {
    const { x, y } = await placeOf(page, upload);
    await page.mouse.move(x, y);
    await page.mouse.click(x, y);
  }
  await (await chooser).setFiles(upload.files);
}

async function visit(page, errors, { url, renderer, graph, uploads, folder }) {
  await useRenderer(url, renderer);
  await openPage(page, url);
  await openGraph(page, graph);
  errors.length = 0;
  const chosen = [];
  for (const [number, upload] of uploads.entries()) {
    const before = await page.evaluate(valueOf, upload);
    await (upload.how === "drop" ? drop(page, upload) : press(page, upload, renderer));
    const end = Date.now() + PATIENCE / 3;
    while ((await page.evaluate(valueOf, upload)) === before && Date.now() < end) await page.waitForTimeout(250);
    chosen.push(await page.evaluate(valueOf, upload));
    await page.screenshot({ path: path.join(folder, `${renderer}_${number}.png`) });
  }
  return { chosen, errors: [...errors] };
}

async function main() {
  const [url, jobFile, folder] = process.argv.slice(2);
  const job = JSON.parse(fs.readFileSync(jobFile, "utf8"));
  await withBrowser(async (page, errors) => {
    const found = {};
    for (const renderer of job.renderers) found[renderer] = await visit(page, errors, { url, renderer, folder, ...job });
    fs.writeFileSync(path.join(folder, "chosen.json"), JSON.stringify(found));
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
