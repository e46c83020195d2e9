// Puts the third-party scripts of the search page into xjepa_jax/serve/page/vendor: `make page`.
//
//   maplibre-gl.mjs, maplibre-gl-worker.mjs, maplibre-gl.css   as published
//   countries-50m.json      the map's background, TopoJSON
//   topojson-client.mjs     what reads it, one module
//   regl-scatterplot.js     the scatter plot and what it needs, a classic script: a frame without an
//                           origin cannot load modules
//   LICENSES.txt            of everything in there

import { build } from "esbuild";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const packages = path.join(here, "node_modules");
const vendor = path.join(here, "..", "xjepa_jax", "serve", "page", "vendor");

const COPIED = [
  "maplibre-gl/dist/maplibre-gl.mjs",
  "maplibre-gl/dist/maplibre-gl-worker.mjs",
  "maplibre-gl/dist/maplibre-gl.css",
  "world-atlas/countries-50m.json",
];
const BUNDLED = {
  "topojson-client.mjs": { from: 'export { feature, mesh } from "topojson-client";', format: "esm" },
  "regl-scatterplot.js": {
    from: 'export { default as createScatterplot } from "regl-scatterplot";',
    format: "iife",
    globalName: "reglScatterplot",
  },
};

async function bundle(name, { from, ...options }) {
  const result = await build({
    stdin: { contents: from, resolveDir: here },
    outfile: path.join(vendor, name),
    bundle: true,
    minify: true,
    metafile: true,
    target: "es2022",
    legalComments: "none", // all licences are in LICENSES.txt
    ...options,
  });
  return Object.keys(result.metafile.inputs).filter((file) => file.includes("node_modules/"));
}

// The package that a file below node_modules belongs to: "name" or "@scope/name".
function packageOf(file) {
  const [first, second] = file.split("node_modules/").pop().split("/");
  return first.startsWith("@") ? `${first}/${second}` : first;
}

// A package and all that it needs: published bundles have those inside.
async function withNeeds(name, found = new Set()) {
  if (found.has(name) || name.startsWith("@types/")) return found;
  found.add(name);
  const about = JSON.parse(await readFile(path.join(packages, name, "package.json"), "utf8"));
  for (const need of Object.keys(about.dependencies ?? {})) await withNeeds(need, found);
  return found;
}

async function licence(name) {
  const folder = path.join(packages, name);
  const about = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? await readFile(path.join(folder, file), "utf8") : "(it has no licence file)";
  return `${name} ${about.version}: ${about.license}\n\n${text.trim()}\n`;
}

await rm(vendor, { recursive: true, force: true });
await mkdir(vendor, { recursive: true });
const used = new Set(COPIED.map((file) => file.split("/")[0]));
for (const file of COPIED) {
  const text = await readFile(path.join(packages, file), "utf8");
  // Source maps are not shipped, and a reference to one would be a request for a file that is not there.
  const kept = text.replace(/\n\/[/*]# sourceMappingURL=.*\s*$/, "\n");
  await writeFile(path.join(vendor, path.basename(file)), kept);
}
for (const [name, options] of Object.entries(BUNDLED)) {
  for (const file of await bundle(name, options)) used.add(packageOf(file));
}
const all = new Set();
for (const name of used) await withNeeds(name, all);
const licences = await Promise.all([...all].sort().map(licence));
await writeFile(path.join(vendor, "LICENSES.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));
console.log(`Third-party scripts of the page: ${(await readdir(vendor)).sort().join(", ")}`);
