// The descriptor space: the plot's frame, and what it is sent.

import { dot } from "./cards.js";
import { onScheme, sensorColour } from "./colours.js";
import { byId, element } from "./element.js";

/** The plot, or null where there is none to show; says why not in its place. */
export async function openScatter(page) {
  if (!page.about.vendored.scatter) {
    absent("The plot's scripts are not installed (make page). Everything else works without them.");
    return null;
  }
  try {
    return new Scatter(page, await page.source.plane());
  } catch (error) {
    absent(error.message);
    return null;
  }
}

class Scatter {
  constructor(page, plane) {
    this.page = page;
    this.points = plane.points; // [row, x, y, sensor's number, id]
    this.place = new Map(this.points.map(([row], index) => [row, index]));
    this.rows = [];
    const share = Math.round(plane.share * 100);
    const joined = this.pairs().length ? "; a line joins a scene's views" : "";
    const count = this.points.length.toLocaleString("en");
    this.caption = `${count} tiles, ${share} % of their variance${joined}`;
    this.frame = element("iframe", {
      src: "page/scatter.html", sandbox: "allow-scripts", title: "Descriptor space",
    });
    window.addEventListener("message", (event) => {
      if (event.source === this.frame.contentWindow) this.told(event.data);
    });
    onScheme(() => this.send());
    byId("scatter").replaceChildren(this.frame);
    this.note();
  }

  told({ kind, index, reason }) {
    if (kind === "ready") this.send();
    if (kind === "drawn") this.mark();
    if (kind === "failed") absent(`There is no plot in this browser (${reason}).`);
    if (kind === "over") this.note(index === null ? null : this.points[index]);
    if (kind === "chosen" && this.points[index]) {
      const [row] = this.points[index];
      if (this.page.source.asksWith(row)) this.page.ask(row);
    }
  }

  send() {
    const paint = getComputedStyle(document.documentElement);
    const colour = (name) => paint.getPropertyValue(name).trim();
    const sensors = this.page.about.sensors;
    const pairs = this.pairs();
    this.frame.contentWindow.postMessage({
      kind: "points",
      points: this.points.map(([, x, y, sensor]) => [x * 0.94, y * 0.94, sensor]),
      pairs,
      colours: sensors.map((_, number) => sensorColour(number)),
      background: colour("--paper"),
      ink: colour("--ink"),
      line: faint(colour("--edge"), pairs.length),
    }, "*"); // the frame has no origin to name
  }

  pairs() {
    const views = Map.groupBy(this.points.keys(), (index) => this.points[index][4]);
    return [...views.values()].flatMap((all) => all.slice(1).map((index) => [all[0], index]));
  }

  /** Marks what was asked with and what was found. */
  show(rows) {
    this.rows = rows;
    this.mark();
  }

  mark() {
    const indices = this.rows.map((row) => this.place.get(row)).filter((at) => at !== undefined);
    this.frame.contentWindow?.postMessage({ kind: "marks", indices }, "*");
  }

  note(point = null) {
    const legend = this.page.about.sensors.map((key, number) =>
      element("span", { class: "legend" }, dot(number), key));
    const text = point ? `${point[4]}, ${this.page.about.sensors[point[3]]}` : this.caption;
    byId("scatter-note").replaceChildren(...legend, text);
  }
}

/** #rrggbb as 0 to 1, the more transparent the more lines there are. */
function faint(colour, lines) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
  return [...parts, Math.min(0.6, Math.max(0.08, 40 / lines))];
}

function absent(text) {
  byId("scatter").replaceChildren(element("p", { class: "absent faint" }, text));
}
