// usage: node open_page.js PAGE.html JOBS.json OUT_FOLDER
// Opens a page from disk in headless Chromium with software GL. JOBS: {pictures: [{pose, camera, size}], steps: [text],
// screenshot, viewport, touch, reducedMotion, noWebgl}. Writes answer.json, picture0.rgba ..., means0.f32 ..., screenshot.png into the folder.
const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");
const { withChromium, SOFTWARE_GL, NO_GL } = require("../host/chromium.js");

const base64 = (array) => Buffer.from(array, "base64");

// What a page does for one job: bytes of the picture and of the positions, as base64.
async function takePicture({ pose, camera, size }) {
  const text = (bytes) => {
    let out = "";
    for (let i = 0; i < bytes.length; i += 32768) out += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(out);
  };
  const { view } = window.AP3D, start = performance.now();
  const pixels = await view.picture(size, size, camera, pose, [0, 0, 0, 0]);
  const milliseconds = performance.now() - start, { means } = await view.posed();
  return { pixels: text(pixels), means: text(new Uint8Array(means.buffer)), milliseconds };
}

async function main() {
  const [file, jobsFile, folder] = process.argv.slice(2);
  const jobs = JSON.parse(fs.readFileSync(jobsFile, "utf8"));
  const answer = { errors: [], pictures: [], steps: [] };
  const look = async (page) => {
    page.on("pageerror", (error) => answer.errors.push(String(error.stack)));
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && answer.errors.push(message.text()));
    page.on("request", (request) => !/^(file|blob|data):/.test(request.url()) && answer.errors.push(`asks for ${request.url()}`));
    await page.goto(pathToFileURL(path.resolve(file)).href);
    await page.waitForFunction(() => document.body.dataset.state, null, { timeout: 240000 });
    answer.state = await page.evaluate(() => document.body.dataset.state);
    answer.note = await page.evaluate(() => document.getElementById("note").textContent);
    answer.openedAfter = await page.evaluate(() => window.AP3D.openedAfter ?? null);
    for (const [index, job] of (jobs.pictures || []).entries()) {
      const taken = await page.evaluate(takePicture, job);
      fs.writeFileSync(path.join(folder, `picture${index}.rgba`), base64(taken.pixels));
      fs.writeFileSync(path.join(folder, `means${index}.f32`), base64(taken.means));
      answer.pictures.push({ milliseconds: taken.milliseconds });
    }
    // Steps are expressions: `page` for what a user does, `window` things inside page.evaluate.
    for (const step of jobs.steps || []) answer.steps.push((await eval(`(async () => (${step}))()`)) ?? null);
    if (jobs.screenshot) await page.screenshot({ path: path.join(folder, "screenshot.png"), timeout: 120000 });
  };
  const viewport = jobs.viewport || { width: 900, height: 700 };
  const args = jobs.noWebgl ? [...NO_GL, "--disable-3d-apis"] : SOFTWARE_GL;
  await withChromium(look, { viewport, hasTouch: Boolean(jobs.touch), reducedMotion: jobs.reducedMotion, args });
  fs.writeFileSync(path.join(folder, "answer.json"), JSON.stringify(answer));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
