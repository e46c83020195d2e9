// What is asked with: a tile and its other views, an upload, and examples for and against.

import { dot, sensorLine } from "./cards.js";
import { element } from "./element.js";

/**
 * The query's part of the page.
 * @param {Object} page
 * @param {Map<number, Array>} views row -> the tile and its other views, of all examples
 * @param {Object|null} answer to an upload: its title and sensor
 */
export function query(page, views, answer) {
  const { state } = page;
  const parts = [];
  if (state.upload) parts.push(uploaded(page, answer));
  const [first, ...rest] = state.upload ? [null, ...state.like] : state.like;
  if (typeof first === "number" && views.has(first)) parts.push(main(views.get(first), page));
  parts.push(...group("And like", rest, "like", views, page));
  parts.push(...group("Not like", state.unlike, "unlike", views, page));
  if (!parts.length) {
    const upload = page.about.uploads.length ? ", or upload an image" : "";
    const map = page.about.bounds && page.about.vendored.map ? " or on the map" : "";
    const text = `Choose a tile below${map}${upload}. What looks like it is found`;
    const where = page.about.sensors.length > 1 ? ", also in the other sensors." : ".";
    return [element("p", { class: "faint" }, text + where)];
  }
  parts.push(element("button", { type: "button", click: () => page.clear() }, "Start over"));
  return parts;
}

function main([tile, ...others], page) {
  const switches = others
    .filter((other) => page.source.asksWith(other.row))
    .map((other) => {
      const label = `Ask with the ${other.sensor} view instead`;
      const click = () => page.ask(other.row);
      const mark = dot(page.about.sensors.indexOf(other.sensor));
      return element("button", { type: "button", "aria-label": label, title: label, click },
        mark, `use ${other.sensor}`);
    });
  return element("div", { class: "example" },
    element("img", { src: page.source.picture(tile.row), alt: "", width: 104, height: 104 }),
    element("div", {},
      element("p", { class: "id" }, tile.id),
      sensorLine(tile, page.about.sensors),
      switches.length ? element("div", { class: "views" }, ...switches) : null));
}

function uploaded(page, answer) {
  const address = page.source.uploadedPicture(page.state.upload);
  const sensor = answer ? page.about.uploads.find((key) => answer.sensor === key) ?? "" : "";
  return element("div", { class: "example" },
    element("img", { src: address, alt: "The uploaded image", width: 104, height: 104 }),
    element("div", {},
      element("p", { class: "id" }, answer ? answer.title : "Upload"),
      element("p", { class: "faint" }, sensor ? `${sensor} · uploaded` : "uploaded")));
}

function group(title, rows, name, views, page) {
  if (!rows.length) return [];
  const items = rows.filter((row) => views.has(row)).map((row) => {
    const [tile] = views.get(row);
    const label = `Take out ${tile.id}`;
    return element("div", { class: "example small" },
      element("img", { src: page.source.picture(row), alt: "", width: 48, height: 48 }),
      element("div", {}, element("p", { class: "id" }, tile.id),
        sensorLine(tile, page.about.sensors)),
      element("button", { type: "button", "aria-label": label, click: () => page.drop(name, row) },
        "×"));
  });
  return [element("h3", {}, title), ...items];
}
