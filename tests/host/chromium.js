// Headless Chromium for the scripts of the browser tests, with a profile of its own that is gone afterwards.
const fs = require("fs");
const os = require("os");
const path = require("path");
const { chromium } = require("playwright-core");

const ARGUMENTS = ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-sync"];
const SOFTWARE_GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
const NO_GL = ["--disable-gpu"];

// Gives an empty page to `work`, and closes the browser behind it. `args`: beyond the usual ones; all else is playwright's.
async function withChromium(work, { args = [], ...options } = {}) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "ap3d-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM || "chromium",
    headless: true,
    args: [...ARGUMENTS, ...args],
    ...options,
  });
  try {
    return await work(context.pages()[0] ?? (await context.newPage()));
  } finally {
    await context.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
}

module.exports = { withChromium, SOFTWARE_GL, NO_GL };
