// usage: node frontend_templates.js URL PACK OUTPUT_FOLDER
// Opens Browse Templates, chooses a pack's own, and writes what is shown: templates.json, {shown: [{name, text, pictures:
// [width]}], failed: [address]}, and templates.png.
const fs = require("fs");
const path = require("path");
const { withBrowser, openPage, PATIENCE } = require("./frontend_page.js");

const CARD = "template-workflow-";

async function main() {
  const [url, pack, folder] = process.argv.slice(2);
  await withBrowser(async (page) => {
    const failed = [];
    page.on("response", (answer) => {
      if (answer.status() >= 400 && answer.url().includes("workflow_templates")) failed.push(answer.url());
    });
    await openPage(page, url);
    await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.BrowseTemplates"));
    await page.getByText(pack, { exact: true }).first().click({ timeout: PATIENCE });
    const cards = page.locator(`[data-testid^="${CARD}"]:has(img)`);
    await cards.first().waitFor({ timeout: PATIENCE });
    const look = (card) =>
      [...document.querySelectorAll(`[data-testid^="${card}"]`)]
        .map((one) => ({
          name: one.dataset.testid.slice(card.length),
          text: one.innerText,
          pictures: [...one.querySelectorAll("img")].map((image) => (image.complete ? image.naturalWidth : 0)),
        }));
    // Pictures are loaded when they come into sight, and taken away again by some frontends when they leave it.
    const seen = {};
    const loaded = (one) => one.pictures.length > 0 && one.pictures.every((width) => width > 0);
    const end = Date.now() + PATIENCE / 3;
    do {
      for (const card of await page.locator(`[data-testid^="${CARD}"]`).all()) {
        await card.scrollIntoViewIfNeeded({ timeout: 2000 }).catch(() => {}); // a card that was taken away meanwhile
        await page.waitForTimeout(100);
        for (const one of await page.evaluate(look, CARD)) if (!loaded(seen[one.name] ?? { pictures: [] })) seen[one.name] = one;
      }
    } while (!Object.values(seen).every(loaded) && Date.now() < end);
    const shown = Object.values(seen);
    await page.screenshot({ path: path.join(folder, "templates.png") });
    fs.writeFileSync(path.join(folder, "templates.json"), JSON.stringify({ shown, failed }));
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
