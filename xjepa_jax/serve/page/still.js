// The archive as static files: hits were found beforehand, for each tile and each sensor.

import { json } from "./live.js";
import { OTHERS } from "./state.js";

export class Still {
  constructor(about) {
    this.about = about;
    this.feedback = false;
    this.boxes = false;
    this.known = new Set(about.queries);
  }

  asksWith(row) {
    return this.known.has(row);
  }

  picture(row) {
    return `pictures/${row}.png`;
  }

  tiles() {
    this.loading ??= json("all-tiles.json").then(
      (tiles) => new Map(tiles.map((tile) => [tile.row, tile])),
    );
    return this.loading;
  }

  async start(count, sensor, turn) {
    const found = [...(await this.tiles()).values()].filter(
      (tile) => this.known.has(tile.row) && (!sensor || tile.sensor === sensor),
    );
    const step = Math.max(found.length / count, 1);
    const offset = (turn * step * 0.381966) % step;
    const many = Math.min(count, found.length);
    return Array.from({ length: many }, (_, i) => found[Math.floor(i * step + offset)]);
  }

  async views(row) {
    const tiles = await this.tiles();
    const tile = tiles.get(row);
    if (!tile) throw new Error(`There is no tile ${row} in this copy.`);
    return [tile, ...[...tiles.values()].filter((o) => o.id === tile.id && o.row !== row)];
  }

  async places() {
    const tiles = [...(await this.tiles()).values()];
    const count = new Set(tiles.map((tile) => tile.id)).size;
    return { count, shown: count, tiles };
  }

  plane() {
    return json("plane.json");
  }

  async search(state) {
    const tiles = await this.tiles();
    const [row] = state.like;
    const tile = tiles.get(row);
    if (!tile || !this.known.has(row)) {
      throw new Error("This copy has no hits of that tile. Choose another.");
    }
    const found = await json(`hits/${row}.json`);
    const hits = Object.entries(found)
      .filter(([sensor]) => wanted(sensor, state.sensor, tile.sensor, this.about.sensors))
      .flatMap(([, list]) => list)
      .map(([at, score, confidence]) => ({ ...tiles.get(at), score, confidence }))
      .filter((hit) => within(hit.time, state.since, state.until))
      .sort((a, b) => b.score - a.score)
      .slice(0, state.k)
      .map((hit, at) => ({ ...hit, rank: at + 1 }));
    return { title: tile.id, sensor: tile.sensor, among: null, hits };
  }

  /** The hits as GeoJSON, an address that lasts as long as the page. */
  geojson(_state, _bbox, answer) {
    const features = answer.hits.map(({ footprint, ...properties }) => ({
      type: "Feature",
      geometry: footprint,
      properties: { query: answer.title, ...properties },
    }));
    const text = JSON.stringify({ type: "FeatureCollection", features });
    return URL.createObjectURL(new Blob([text], { type: "application/geo+json" }));
  }
}

function wanted(sensor, choice, asked, sensors) {
  if (choice === OTHERS) return sensor !== asked || sensors.length === 1;
  return choice === "" || sensor === choice;
}

function within(time, since, until) {
  if (!since && !until) return true;
  if (!time) return false;
  const day = time.slice(0, 10); // UTC, as the archive has it
  return (!since || day >= since) && (!until || day <= until);
}
