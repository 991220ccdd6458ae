// usage: node frontend_run.js URL JOB.json OUTPUT_FOLDER
// Runs graphs by the page's own queue and writes what every node shows after each, as a person would see it.
// JOB: {renderers: ["classic", "nodes2"], graphs: [{name, graph, expected: [{id: {text, pictures, film}}]}]}; a graph runs
// as often as there is something expected.
// OUTPUT_FOLDER gets shown.json, {renderer: {name: {before, runs: [nodes], errors}}}, and after each run a screenshot
// RENDERER_NAME_NUMBER.png.
const fs = require("fs");
const path = require("path");
const { withBrowser, openPage, openGraph, useRenderer, run, PATIENCE } = require("./frontend_page.js");

// {id: {text, color, pictures, films, box}}: what can be seen on each node; box: [left, top, right, bottom] in pixels.
async function look(page) {
  return page.evaluate(() => {
    const visible = (element) => {
      const box = element?.getBoundingClientRect();
      if (!element?.isConnected || !box.width || !box.height) return false;
      const top = document.elementFromPoint(box.x + box.width / 2, box.y + Math.min(12, box.height / 2));
      return element === top || element.contains(top) || top?.contains(element);
    };
    const { ds } = window.app.canvas;
    const shown = {};
    for (const node of window.app.graph._nodes ?? window.app.graph.nodes) {
      const element = document.querySelector(`[data-node-id="${node.id}"]`);
      const [x, y] = [(node.pos[0] + ds.offset[0]) * ds.scale, (node.pos[1] + ds.offset[1]) * ds.scale];
      const canvas = window.app.canvas.canvas.getBoundingClientRect();
      const [width, height, title] = [node.size[0] * ds.scale, node.size[1] * ds.scale, 30 * ds.scale];
      let box = [canvas.x + x, canvas.y + y - title, canvas.x + x + width, canvas.y + y + height];
      if (element) {
        const own = element.getBoundingClientRect();
        box = [own.left, own.top, own.right, own.bottom];
      }
      const within = ({ left, top, right, bottom }) =>
        left >= box[0] - 2 && top >= box[1] - 2 && right <= box[2] + 2 && bottom <= box[3] + 2;
      const inside = (selector) =>
        [...document.querySelectorAll(selector)].filter((one) => visible(one) && within(one.getBoundingClientRect()));
      const words = inside("p, span, div, textarea").filter((one) => !one.children.length);
      const drawn = element ? [...element.querySelectorAll("img")] : (!node.animatedImages && node.imgs) || [];
      const [field] = inside(".ap3d-node-text");
      shown[node.id] = {
        box,
        text: field ? field.value ?? field.textContent : null,
        color: field ? getComputedStyle(field).color : null,
        cut: field ? Math.max(0, field.scrollHeight - field.clientHeight) : 0, // pixels of text that need scrolling
        size: [...node.size],
        progress: words.map((one) => one.value ?? one.textContent).filter((said) => / of \d+$/.test(said.trim())),
        pictures: drawn.map((image) => image.src),
        films: inside("video").map((film) => {
          const { left, top, right, bottom } = film.getBoundingClientRect();
          const address = film.currentSrc || film.src;
          return { src: address, time: film.currentTime, size: film.videoWidth, box: [left, top, right, bottom] };
        }),
      };
    }
    return shown;
  });
}

// Whether everything expected is there; only to know how long to wait.
function complete(shown, expected) {
  const has = (urls, names) => names.every((name) => urls.some((url) => url.includes(name)));
  return Object.entries(expected).every(([id, wanted]) => {
    const node = shown[id];
    if (wanted.text != null && node.text !== wanted.text) return false;
    if (wanted.film) return node.films.some((film) => film.src.includes(wanted.film) && film.time > 0);
    return has(node.pictures, (wanted.pictures ?? []).slice(0, 1));
  });
}

async function lookWhenComplete(page, expected, seconds) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    // Somebody presses play.
    await page.evaluate(() => document.querySelectorAll("video").forEach((film) => ((film.muted = true), film.play().catch(() => {}))));
    const shown = await look(page);
    if (complete(shown, expected) || Date.now() > end) return shown;
    await page.waitForTimeout(250);
  }
}

async function visit(page, errors, { url, renderer, graphs, folder }) {
  await useRenderer(url, renderer);
  await openPage(page, url);
  const results = {};
  for (const { name, graph, expected } of graphs) {
    errors.length = 0;
    await openGraph(page, graph);
    const before = await look(page);
    const shown = [];
    for (const [number, wanted] of expected.entries()) {
      await run(page);
      await page.keyboard.press("Escape"); // the dialog of an error in older frontends
      await lookWhenComplete(page, wanted, PATIENCE / 6000);
      await page.waitForTimeout(700); // what the frontend still has to take away
      shown.push(await lookWhenComplete(page, wanted, PATIENCE / 6000)); // a film that came anew is started anew
      await page.screenshot({ path: path.join(folder, `${renderer}_${name}_${number}.png`) });
    }
    results[name] = { before, runs: shown, errors: [...errors] };
  }
  return results;
}

async function main() {
  const [url, jobFile, folder] = process.argv.slice(2);
  const { renderers, graphs } = JSON.parse(fs.readFileSync(jobFile, "utf8"));
  await withBrowser(async (page, errors) => {
    const results = {};
    for (const renderer of renderers) results[renderer] = await visit(page, errors, { url, renderer, graphs, folder });
    fs.writeFileSync(path.join(folder, "shown.json"), JSON.stringify(results));
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
