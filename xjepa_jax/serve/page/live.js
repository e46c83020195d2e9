// The archive behind a server.

import { parameters } from "./state.js";

/** JSON from an address; an Error says what the server said. */
export async function json(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const content = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(content?.error ?? `The server answered ${answer.status}.`);
  if (content === null) throw new Error("The server's answer is no JSON.");
  return content;
}

export class Live {
  constructor(about) {
    this.about = about;
    this.feedback = true; // more and less like this
    this.boxes = true; // only where the map is
  }

  asksWith() {
    return true;
  }

  picture(row) {
    return `pictures/${this.about.version}/${row}.png`;
  }

  uploadedPicture(upload) {
    return `uploads/${upload}.png`;
  }

  start(count, sensor, turn) {
    return json(`tiles.json?${new URLSearchParams({ count, sensor, turn })}`);
  }

  views(row) {
    return json(`tiles/${row}.json`);
  }

  places(bbox) {
    return json(`places.json?${new URLSearchParams({ bbox })}`);
  }

  plane() {
    return json("plane.json");
  }

  search(state, bbox) {
    return json(`search.json?${parameters(state, bbox)}`);
  }

  /** The address of the hits as GeoJSON. */
  geojson(state, bbox) {
    return `search.geojson?${parameters(state, bbox)}`;
  }

  /** `told` of the image: sensor, offset, trust_units; what is empty is not said. */
  upload(file, told) {
    const where = new URLSearchParams({ name: file.name });
    for (const [name, value] of Object.entries(told)) if (value) where.set(name, value);
    const headers = { "content-type": "application/octet-stream" };
    return json(`uploads?${where}`, { method: "POST", body: file, headers });
  }
}
