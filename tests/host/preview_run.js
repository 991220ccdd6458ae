// usage: node preview_run.js URL JOB.json OUTPUT_FOLDER
// Uses the page on the node of AP3D_PreviewAvatar as a person would: runs, turns, moves a slider, runs again, opens the
// saved graph, looks away, deletes. JOB: {renderers, graph, node, size}. OUTPUT_FOLDER gets seen.json, {renderer: what was
// found}, and screenshots RENDERER_NAME.png.
const fs = require("fs");
const path = require("path");
const { SOFTWARE_GL } = require("./chromium.js");
const { withBrowser, openPage, openGraph, useRenderer, run, PATIENCE } = require("./frontend_page.js");

const FRAME = ".ap3d-avatar iframe";

// The page within the node, when its first picture stands.
async function opened(page) {
  const handle = await page.waitForSelector(FRAME, { state: "attached", timeout: PATIENCE });
  const frame = await handle.contentFrame();
  await frame.waitForFunction(() => document.body?.dataset.state, null, { timeout: 3 * PATIENCE });
  const state = await frame.evaluate(() => document.body.dataset.state);
  if (state !== "ready") throw new Error(await frame.evaluate(() => document.getElementById("note").textContent));
  return frame;
}

const widgets = (page, node) => page.evaluate((node) => {
  const { widgets } = window.app.graph.getNodeById(node);
  return Object.fromEntries(["pose", "camera"].map((name) => [name, widgets.find((widget) => widget.name === name).value]));
}, node);

async function until(page, node, name, words) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await page.waitForTimeout(100)) {
    const found = await widgets(page, node);
    if (words.test(found[name])) return found;
  }
  throw new Error(`'${name}' stayed ${JSON.stringify(await widgets(page, node))}`);
}

// What the page shows, at a size: RGBA bytes in base64, its pose vector, and the shape of its picture.
async function picture(frame, size) {
  await frame.waitForFunction(() => AP3D.state.shown && !AP3D.state.changed, null, { timeout: PATIENCE });
  return frame.evaluate(async ([width, height]) => {
    const { view } = AP3D, { canvas } = view, shape = [canvas.clientWidth, canvas.clientHeight];
    const camera = view.camera(), scale = width / canvas.width, pose = Array.from(view.pose);
    const scaled = { ...camera, pinhole: camera.pinhole.map((value) => scale * value) };
    const pixels = await view.picture(width, height, scaled, pose, view.background);
    let text = "";
    for (let i = 0; i < pixels.length; i += 32768) text += String.fromCharCode(...pixels.subarray(i, i + 32768));
    return { pixels: btoa(text), pose, shape };
  }, size);
}

// Drags from the middle of the frame by a part of its width.
async function drag(page, share) {
  const box = await (await page.$(FRAME)).boundingBox(), [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x + share * box.width, y, { steps: 4 });
  await page.mouse.up();
}

// Presses the mouse on an element of the frame, at a part of its width. The frame may be drawn smaller than it is, which
// the clicks of the driver do not know.
async function press(page, frame, selector, share = 0.5) {
  const box = await (await page.$(FRAME)).boundingBox();
  const inner = await frame.evaluate((selector) => {
    const { x, y, width, height } = document.querySelector(selector).getBoundingClientRect();
    return { x, y, width, height, whole: innerWidth };
  }, selector);
  const scale = box.width / inner.whole;
  await page.mouse.click(box.x + scale * (inner.x + share * inner.width), box.y + scale * (inner.y + inner.height / 2));
}

// From now on the page counts how often it looks for something to draw.
const count = (frame) => frame.evaluate(() => {
  const { view } = AP3D, { onframe } = view;
  view.looks = 0;
  view.onframe = (now) => { view.looks++; return onframe(now); };
});

// Whether it looks on while it is seen, and how often it does out of sight in a longer time.
async function looks(page, frame) {
  const begin = Date.now();
  await count(frame);
  await frame.waitForFunction(() => AP3D.view.looks > 5, null, { polling: 100, timeout: PATIENCE });
  const passed = Date.now() - begin;
  await lookAway(page, 6000);
  const before = await frame.evaluate(() => AP3D.view.looks);
  await page.waitForTimeout(2 * passed + 500);
  const found = (await frame.evaluate(() => AP3D.view.looks)) - before;
  await lookAway(page, -6000);
  return found;
}

async function lookAway(page, away) {
  await page.evaluate((away) => {
    window.app.canvas.ds.offset[0] += away;
    window.app.canvas.setDirty(true, true);
  }, away);
  await page.waitForTimeout(1000);
}

async function visit(page, errors, { url, renderer, graph, node, size, folder }) {
  const shot = (name) => page.screenshot({ path: path.join(folder, `${renderer}_${name}.png`), timeout: PATIENCE });
  await useRenderer(url, renderer);
  await openPage(page, url);
  errors.length = 0; // what the frontend said of itself
  await openGraph(page, graph);
  await shot("before");
  await run(page);
  const seen = {}, frame = await opened(page);
  seen.first = await picture(frame, size);
  await page.waitForTimeout(500);
  await shot("first");
  await frame.evaluate(() => (window.mark = "kept"));
  await drag(page, 0.1);
  await until(page, node, "camera", /yaw/);
  await press(page, frame, "#toggle");
  await frame.waitForFunction(() => !document.getElementById("panel").hidden, null, { timeout: PATIENCE });
  await press(page, frame, "input[data-name=Jaw]", 0.6);
  seen.chosen = await until(page, node, "pose", /"jaw"/);
  await shot("panel");
  await press(page, frame, "#toggle");
  await run(page);
  seen.kept = await frame.evaluate(() => window.mark);
  seen.second = await picture(frame, size);
  await page.waitForTimeout(500);
  await shot("second");
  // By hand, in the widget itself.
  await page.evaluate((node) => {
    const widget = window.app.graph.getNodeById(node).widgets.find(({ name }) => name === "pose");
    widget.value = '{"jaw":18,"turn":-30}';
    widget.callback(widget.value);
  }, node);
  await frame.waitForFunction(() => AP3D.state.sliders.turn === -30, null, { timeout: PATIENCE });
  await run(page);
  seen.byHand = await picture(frame, size);
  seen.looks = await looks(page, frame);
  // The saved graph, opened again.
  const saved = await page.evaluate(() => JSON.parse(JSON.stringify(window.app.graph.serialize())));
  await openGraph(page, saved);
  const again = await opened(page);
  await again.waitForFunction(() => AP3D.state.sliders.turn === -30, null, { timeout: PATIENCE });
  seen.again = { ...(await picture(again, size)), widgets: await widgets(page, node) };
  seen.frames = [await page.evaluate((selector) => document.querySelectorAll(selector).length, FRAME), page.frames().length];
  await shot("again");
  await page.evaluate((node) => window.app.graph.remove(window.app.graph.getNodeById(node)), node);
  await page.waitForTimeout(1000);
  seen.left = [await page.evaluate((selector) => document.querySelectorAll(selector).length, FRAME), page.frames().length];
  return { ...seen, errors: [...errors] };
}

async function main() {
  const [url, jobFile, folder] = process.argv.slice(2);
  const { renderers, ...job } = JSON.parse(fs.readFileSync(jobFile, "utf8"));
  await withBrowser(async (page, errors) => {
    const seen = {};
    try {
      for (const renderer of renderers) seen[renderer] = await visit(page, errors, { url, renderer, folder, ...job });
    } catch (error) {
      await page.screenshot({ path: path.join(folder, "failed.png"), timeout: PATIENCE });
      throw error;
    }
    fs.writeFileSync(path.join(folder, "seen.json"), JSON.stringify(seen));
  }, SOFTWARE_GL);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
