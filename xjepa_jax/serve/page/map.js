// The archive on a map: tiles in view, hits numbered, the query marked; a click asks.

import { onScheme } from "./colours.js";
import { byId, element } from "./element.js";
import { mapStyle, NO_FEATURES } from "./map-style.js";

const REACH = 6; // pixels around a click
const DOT = 7; // pixels of an outline that needs no dot
const CLOSEST = 14; // zoom at which a tile of some hundred metres fills the map

/** A map, or null where there is none to show; says why not in its place. */
export async function openMap(page) {
  const { about } = page;
  if (!about.bounds) {
    byId("map-view").hidden = true;
    return null;
  }
  if (!about.vendored.map) {
    absent("The map's scripts are not installed (make page). Everything else works without them.");
    return null;
  }
  try {
    const [maplibre, topojson, topology] = await Promise.all([
      import("./vendor/maplibre-gl.mjs"),
      import("./vendor/topojson-client.mjs"),
      fetch("page/vendor/countries-50m.json").then((answer) => answer.json()),
      stylesheet("page/vendor/maplibre-gl.css"),
    ]);
    const { land, countries } = topology.objects;
    const style = () => mapStyle(
      topojson.feature(topology, land),
      topojson.mesh(topology, countries, (a, b) => a !== b),
    );
    return new TileMap(page, maplibre, style);
  } catch (error) {
    absent(`There is no map in this browser (${error.message}). Everything else works without it.`);
    return null;
  }
}

class TileMap {
  constructor(page, maplibre, style) {
    this.page = page;
    this.maplibre = maplibre;
    this.places = [];
    this.marks = new Map();
    const [west, south, east, north] = page.about.bounds;
    this.map = new maplibre.Map({
      container: "map",
      style: style(),
      bounds: [[west, south], [east, north]],
      fitBoundsOptions: { padding: 30, maxZoom: CLOSEST },
      maxZoom: 18,
      attributionControl: false, // there is a line below
      dragRotate: false,
      pitchWithRotate: false,
      cooperativeGestures: false,
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.addControl(new maplibre.NavigationControl({ showCompass: false }), "top-right");
    this.map.addControl(new maplibre.ScaleControl(), "bottom-left");
    this.map.on("style.load", () => this.ready());
    this.look(); // the server need not wait for the first picture
    this.map.on("moveend", () => this.look());
    this.map.on("click", (event) => this.click(event.point));
    this.map.on("mousemove", (event) => {
      this.map.getCanvas().style.cursor = this.placeAt(event.point) ? "pointer" : "";
    });
    onScheme(() => this.map.setStyle(style()));
    this.keyboard();
  }

  ready() {
    this.loaded = true;
    this.drawPlaces();
    this.draw();
  }

  /** Arrow keys move the map; Enter asks with the place nearest to its middle. */
  keyboard() {
    byId("map").append(element("div", { class: "cross" }));
    const canvas = this.map.getCanvas();
    canvas.setAttribute("aria-label",
      "Map. Arrow keys move it, plus and minus zoom, Enter asks with the tile in the middle.");
    canvas.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      const { lng, lat } = this.map.getCenter();
      const narrow = Math.cos((lat * Math.PI) / 180);
      const away = ([tile]) =>
        Math.hypot((((tile.longitude - lng + 540) % 360) - 180) * narrow, tile.latitude - lat);
      const nearest = this.places.toSorted((a, b) => away(a) - away(b))[0];
      if (nearest) this.ask(nearest);
    });
  }

  /** The map's part of the world as the server takes it. */
  bbox() {
    const bounds = this.map.getBounds();
    const [south, north] = [Math.max(bounds.getSouth(), -90), Math.min(bounds.getNorth(), 90)];
    const whole = bounds.getEast() - bounds.getWest() >= 360;
    const turn = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;
    const [west, east] = whole ? [-180, 180] : [turn(bounds.getWest()), turn(bounds.getEast())];
    return [west, south, east, north].map((degrees) => degrees.toFixed(6)).join(",");
  }

  async look() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    let view;
    try {
      view = await this.page.source.places(this.bbox());
    } catch (error) {
      this.note(error.message);
      return;
    }
    if (turn !== this.turn) return; // the map has moved on
    this.places = [...Map.groupBy(view.tiles, (tile) => tile.id).values()];
    this.drawPlaces();
    const all = view.shown === view.count;
    const what = `${view.count.toLocaleString("en")} ${view.count === 1 ? "place" : "places"} here`;
    this.note(all ? what : `${what}, ${view.shown.toLocaleString("en")} shown; zoom in for the rest`);
    if (this.page.state.inView) this.page.moved();
  }

  drawPlaces() {
    if (!this.loaded || !this.places.length) return;
    const feature = (geometry, place) => ({ type: "Feature", geometry, properties: { place } });
    this.set("tiles", this.places.map(([tile], place) => feature(tile.footprint, place)));
    this.set("points", this.places.map(([tile], place) => feature(point(tile), place)));
    // Dots give way to outlines where these are some pixels wide.
    const zoom = Math.log2((DOT * 360) / (512 * width(this.places[0][0])));
    const fade = ["interpolate", ["linear"], ["zoom"], zoom - 1, 0.75, zoom, 0];
    if (Number.isFinite(zoom)) this.map.setPaintProperty("points", "circle-opacity", fade);
  }

  note(text) {
    byId("map-note").textContent = `${text}. Background: Natural Earth.`;
  }

  /** Shows hits and what they were asked with; moves only where some are out of sight. */
  show(hits, asked) {
    this.hits = hits.filter((tile) => tile.longitude !== null);
    this.asked = asked.filter((tile) => tile.longitude !== null);
    this.draw();
    const tiles = [...this.hits, ...this.asked];
    if (!tiles.length || this.page.state.inView) return;
    const bounds = this.map.getBounds();
    if (tiles.every((tile) => bounds.contains([tile.longitude, tile.latitude]))) return;
    const around = new this.maplibre.LngLatBounds();
    for (const tile of tiles) around.extend([tile.longitude, tile.latitude]);
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.map.fitBounds(around, { padding: 45, maxZoom: CLOSEST, animate: !still, duration: 600 });
  }

  draw() {
    if (!this.loaded || !this.hits) return;
    const outline = (tile) => ({ type: "Feature", geometry: tile.footprint, properties: {} });
    this.set("hits", this.hits.map(outline));
    this.set("asked", this.asked.map(outline));
    for (const mark of this.marks.values()) mark.remove();
    this.marks.clear();
    // The best is drawn last: where several lie at one place, it is seen.
    for (const tile of this.hits.toReversed()) this.mark(tile, `${tile.rank}`, "mark", [0, 0]);
    for (const tile of this.asked) this.mark(tile, "?", "mark asked", [-20, -20]);
  }

  mark(tile, text, kind, offset) {
    // Not in the order of the Tab key: the cards are, and do the same.
    const label = `${text === "?" ? "The query" : `Hit ${text}`}, ${tile.id}`;
    const click = (event) => {
      event.stopPropagation();
      this.page.ask(tile.row);
    };
    const made = element("div", { class: kind, title: label, "aria-hidden": "true", click }, text);
    const mark = new this.maplibre.Marker({ element: made, offset });
    mark.setLngLat([tile.longitude, tile.latitude]).addTo(this.map);
    this.marks.set(`${kind}${tile.row}`, mark);
  }

  /** Lights the mark of a hit, or none. */
  light(row) {
    for (const [key, mark] of this.marks) {
      mark.getElement().classList.toggle("lit", key === `mark${row}`);
    }
  }

  placeAt(at) {
    if (!this.loaded) return null;
    const box = [[at.x - REACH, at.y - REACH], [at.x + REACH, at.y + REACH]];
    const layers = ["points", "tiles-fill"];
    const inside = this.map.queryRenderedFeatures(at, { layers: ["tiles-fill"] });
    const [found] = inside.length ? inside : this.map.queryRenderedFeatures(box, { layers });
    return found ? this.places[found.properties.place] : null;
  }

  click(at) {
    const place = this.placeAt(at);
    if (place) this.ask(place);
  }

  /** Of a place's tiles, that of the sensor that was asked with last. */
  ask(place) {
    const able = place.filter((tile) => this.page.source.asksWith(tile.row));
    const tile = able.find((each) => each.sensor === this.page.askedSensor) ?? able[0];
    if (tile) this.page.ask(tile.row);
  }

  set(name, features) {
    const data = features.length ? { type: "FeatureCollection", features } : NO_FEATURES;
    this.map.getSource(name)?.setData(data);
  }
}

/** Degrees of longitude of a tile's outline. */
function width({ footprint }) {
  if (footprint?.type !== "Polygon") return NaN;
  const across = footprint.coordinates[0].map(([longitude]) => longitude);
  return Math.max(...across) - Math.min(...across);
}

const point = (tile) => ({ type: "Point", coordinates: [tile.longitude, tile.latitude] });

function absent(text) {
  byId("map").replaceChildren(element("p", { class: "absent faint" }, text));
}

function stylesheet(href) {
  return new Promise((resolve, reject) => {
    const failed = () => reject(new Error(`${href} cannot be loaded`));
    const link = element("link", { rel: "stylesheet", href, load: resolve, error: failed });
    document.head.prepend(link); // the page's own rules come after
  });
}
