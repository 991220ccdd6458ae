// What the scripts of the frontend tests share: a browser with ComfyUI's page in it, ready for a graph.
const fs = require("fs");
const os = require("os");
const path = require("path");
const { chromium } = require("playwright-core");

const EXECUTABLE = process.env.CHROMIUM || "chromium";
const PATIENCE = Number(process.env.FRONTEND_SECONDS || 90) * 1000;

// What is none of ours: files that no server here has, and what the browser says of its own.
const FOREIGN = /Failed to load resource|ERR_INTERNET_DISCONNECTED|net::ERR_|preload/;

// Gives `page` and its list of errors to `work`, and closes the browser behind it.
async function withBrowser(work) {
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
    page.on("pageerror", (error) => errors.push(String(error.stack || error.message)));
    page.on("console", (message) => {
      if (message.type() === "error" && !FOREIGN.test(message.text())) errors.push(`${message.text()} (console)`);
    });
    await work(page, errors);
  } finally {
    await context.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
}

async function openPage(page, url) {
  await page.goto(url, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(() => window.app?.extensionManager && window.app.graph && window.app.canvas, null, {
    timeout: PATIENCE,
  });
  // The page loads a graph of its own some time after the application exists; ours must come after it.
  await page.waitForTimeout(2500);
  await page.keyboard.press("Escape"); // the dialog of templates at the first visit
}

module.exports = { withBrowser, openPage, PATIENCE };
