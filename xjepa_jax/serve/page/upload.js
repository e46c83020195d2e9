// Upload of an image to ask with, and what is said of its sensor and its values; what would be
// refused anyway is not sent.

import { byId, element } from "./element.js";

const SUFFIXES = [".tif", ".tiff", ".png", ".npy"];

/** Shows the form where the archive can be asked by image. */
export function uploadForm(page) {
  const { about } = page;
  if (!about.uploads.length) return;
  const form = byId("upload");
  byId("upload-part").hidden = false;
  byId("file-sensor").append(...about.uploads.map((key) => element("option", { value: key }, key)));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [file] = byId("file").files;
    const wrong = refusal(file, about.most_bytes);
    if (wrong) {
      page.fail(wrong);
      return;
    }
    page.busy(true);
    try {
      const found = await page.source.upload(file, {
        sensor: byId("file-sensor").value,
        offset: byId("file-offset").value,
        trust_units: byId("file-trust").checked ? "true" : "",
      });
      page.askUpload(found.upload);
    } catch (error) {
      page.fail(error.message);
    }
  });
}

function refusal(file, most) {
  if (!file) return "Choose a file first.";
  if (!SUFFIXES.some((suffix) => file.name.toLowerCase().endsWith(suffix))) {
    return `${file.name}: upload one of ${SUFFIXES.join(", ")}.`;
  }
  if (file.size > most) {
    return `${file.name}: larger than ${(most / 2 ** 20).toFixed(0)} MB. Cut a tile out of it.`;
  }
  return "";
}
