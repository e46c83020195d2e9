// The page: what is asked, what is found, and the parts that show it.

import { card } from "./cards.js";
import { byId } from "./element.js";
import { filterForm, showFilters } from "./filters.js";
import { json, Live } from "./live.js";
import { openMap } from "./map.js";
import { query } from "./query.js";
import { openScatter } from "./scatter.js";
import { fromAddress, isAsked, nothing, toAddress } from "./state.js";
import { Still } from "./still.js";
import { uploadForm } from "./upload.js";

const STARTING = 24;

class Page {
  constructor(about) {
    this.about = about;
    this.source = about.live ? new Live(about) : new Still(about);
    this.state = fromAddress(window.location.search, about.sensors);
    this.turn = 0; // of the tiles to start from
    this.asking = 0;
    this.askedSensor = "";
    window.addEventListener("popstate", () => {
      this.state = fromAddress(window.location.search, about.sensors);
      this.show();
    });
    byId("others").addEventListener("click", () => {
      this.turn += 1;
      this.show();
    });
  }

  ask(row) {
    this.go({ like: [row], unlike: [], upload: "" });
  }

  askUpload(upload) {
    this.go({ like: [], unlike: [], upload });
  }

  more(row) {
    this.go({ like: [...this.state.like, row] });
  }

  less(row) {
    this.go({ unlike: [...this.state.unlike, row] });
  }

  drop(name, row) {
    this.go({ [name]: this.state[name].filter((each) => each !== row) });
  }

  clear() {
    const { like, unlike, upload } = nothing(this.about.sensors);
    this.go({ like, unlike, upload });
  }

  /** Another question; the focus goes to its answer, for what was clicked is gone. */
  go(change) {
    this.change(change);
    byId("hits").focus({ preventScroll: true });
    if (byId("hits").getBoundingClientRect().top < 0) byId("hits").scrollIntoView();
  }

  change(change) {
    this.state = { ...this.state, ...change };
    window.history.pushState(null, "", toAddress(this.state, this.about.sensors));
    this.show();
  }

  /** The map shows another part of the world, and hits are asked for there. */
  moved() {
    if (isAsked(this.state)) this.show();
  }

  busy(yes) {
    byId("hits").setAttribute("aria-busy", `${yes}`);
  }

  fail(text) {
    this.busy(false);
    byId("error").textContent = text;
    byId("error").hidden = false;
  }

  light(row) {
    this.map?.light(row);
  }

  async show() {
    const asking = (this.asking += 1);
    const { state } = this;
    showFilters(state);
    this.busy(true);
    try {
      const found = isAsked(state) ? await this.hits(state) : await this.starting(state);
      if (asking !== this.asking) return; // something else was asked meanwhile
      byId("error").hidden = true;
      this.render(found);
    } catch (error) {
      if (asking === this.asking) this.fail(error.message);
      return;
    }
    this.busy(false);
  }

  async hits(state) {
    const bbox = state.inView && this.map ? this.map.bbox() : "";
    const rows = [...state.like, ...state.unlike];
    const [answer, ...views] = await Promise.all([
      this.source.search(state, bbox),
      ...rows.map((row) => this.source.views(row)),
    ]);
    const geojson = this.source.geojson(state, bbox, answer);
    return { answer, views: new Map(rows.map((row, at) => [row, views[at]])), geojson };
  }

  async starting(state) {
    const sensor = this.about.sensors.includes(state.sensor) ? state.sensor : "";
    return { tiles: await this.source.start(STARTING, sensor, this.turn), views: new Map() };
  }

  render({ answer, tiles, views, geojson }) {
    const shown = answer ? answer.hits : tiles;
    const asked = this.state.like.map((row) => views.get(row)[0]);
    const ids = new Set(asked.map((tile) => tile.id));
    if (answer?.sensor) this.askedSensor = answer.sensor;
    byId("query").replaceChildren(...query(this, views, answer ?? null));
    byId("cards").replaceChildren(...shown.map((tile) => card(tile, this, ids)));
    byId("hits-title").textContent = answer ? "Hits" : "Tiles to start from";
    byId("status").textContent = answer ? count(answer) : "";
    byId("others").hidden = answer !== undefined;
    byId("geojson").hidden = !answer || !shown.length;
    if (geojson) byId("geojson").href = geojson;
    this.map?.show(answer ? shown : [], asked);
    this.scatter?.show([...asked, ...(answer ? shown : [])].map((tile) => tile.row));
    this.rendered = { answer, shown, asked };
  }

  /** The views that take longer to open show what is there already. */
  async openViews() {
    const views = byId("views");
    if (!this.about.bounds) views.classList.add("one");
    const opened = (part) => {
      if (part && this.rendered) {
        const { answer, shown, asked } = this.rendered;
        const hits = answer ? shown : [];
        if (part === this.map) part.show(hits, asked);
        else part.show([...asked, ...hits].map((tile) => tile.row));
      }
    };
    await Promise.all([
      openMap(this).then((map) => opened((this.map = map))),
      openScatter(this).then((scatter) => opened((this.scatter = scatter))),
    ]);
  }
}

function count({ hits, among }) {
  const number = `${hits.length} ${hits.length === 1 ? "hit" : "hits"}`;
  if (!hits.length) return "Nothing passes the filters. Widen them.";
  return among === null ? number : `${number} among ${among.toLocaleString("en")} tiles`;
}

function introduce(about) {
  const name = about.name ? `Search ${about.name}` : "Search";
  document.title = name;
  byId("name").textContent = name;
  const parts = [
    `${about.count.toLocaleString("en")} tiles of ${about.sensors.join(", ")}`,
    `descriptors of ${about.dimensions} numbers`,
  ];
  if (about.encoder) parts.push(`encoder ${about.encoder}`);
  if (!about.bounds) parts.push("no coordinates, so no map");
  if (!about.live) {
    const able = about.queries.length.toLocaleString("en");
    parts.push(`a static copy: ${able} tiles can be asked with`);
  }
  byId("about").textContent = parts.join(" · ");
  const wide = window.matchMedia("(min-width: 60rem)").matches;
  for (const id of ["upload-part", "filter-part"]) byId(id).open = wide;
  byId("main").hidden = false;
}

async function start() {
  try {
    const about = await json("archive.json");
    const page = new Page(about);
    filterForm(page);
    uploadForm(page);
    introduce(about); // shown when it is complete, so that nothing moves
    await Promise.all([page.show(), page.openViews()]);
  } catch (error) {
    byId("about").textContent = error.message;
  }
}

start();
