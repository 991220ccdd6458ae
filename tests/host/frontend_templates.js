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
        .filter((one) => one.querySelector("img"))
        .map((one) => ({
          name: one.dataset.testid.slice(card.length),
          text: one.innerText,
          pictures: [...one.querySelectorAll("img")].map((image) => (image.complete ? image.naturalWidth : 0)),
        }));
    // Pictures are loaded when they come into sight.
    for (const card of await cards.all()) await card.scrollIntoViewIfNeeded();
    const loaded = (shown) => shown.length > 0 && shown.every((one) => one.pictures.every((width) => width > 0));
    const end = Date.now() + PATIENCE / 3;
    let shown = await page.evaluate(look, CARD);
    while (!loaded(shown) && Date.now() < end) {
      await page.waitForTimeout(500);
      shown = await page.evaluate(look, CARD);
    }
    await page.screenshot({ path: path.join(folder, "templates.png") });
    fs.writeFileSync(path.join(folder, "templates.json"), JSON.stringify({ shown, failed }));
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
