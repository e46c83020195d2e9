// Tiles as cards: a picture that asks when it is clicked, and what is known of the tile.

import { sensorColour } from "./colours.js";
import { element } from "./element.js";

const LABELS = 3; // shown; all are in the title

/** A card; `page` has source, about, state, and the actions ask, more, less and light. */
export function card(tile, page, sameIds) {
  const same = tile.rank !== undefined && sameIds.has(tile.id);
  const made = element(
    "li",
    {
      class: same ? "card same" : "card",
      "data-row": tile.row,
      mouseenter: () => page.light(tile.row),
      mouseleave: () => page.light(null),
      focusin: () => page.light(tile.row),
      focusout: () => page.light(null),
    },
    picture(tile, page),
    element("div", { class: "about" }, ...about(tile, page, same)),
  );
  if (tile.rank !== undefined && page.source.feedback) made.append(feedback(tile, page));
  return made;
}

function picture(tile, page) {
  const address = page.source.picture(tile.row);
  const image = element("img", { src: address, alt: "", width: 128, height: 128, loading: "lazy" });
  const rank = tile.rank === undefined ? null : element("span", { class: "rank" }, `${tile.rank}`);
  if (!page.source.asksWith(tile.row)) return element("div", { class: "picture" }, image, rank);
  const label = `Search with ${tile.id}, ${tile.sensor}`;
  const click = () => page.ask(tile.row);
  return element(
    "button",
    { class: "picture", type: "button", "aria-label": label, title: label, click },
    image,
    rank,
  );
}

function about(tile, page, same) {
  const lines = [];
  if (tile.score !== undefined) {
    const sure = tile.confidence === null ? "" : `, ${percent(tile.confidence)} sure`;
    lines.push(element("div", { class: "worth" }, `score ${tile.score.toFixed(3)}${sure}`));
  }
  if (same) lines.push(element("div", { class: "true" }, "✓ the query's scene"));
  lines.push(element("div", { class: "id" }, tile.id), sensorLine(tile, page.about.sensors));
  if (tile.latitude !== null && tile.longitude !== null) {
    lines.push(element("div", { class: "faint" }, place(tile)));
  }
  if (tile.labels.length) lines.push(labels(tile.labels));
  return lines;
}

/** The sensor, with its colour, and the day. */
export function sensorLine(tile, sensors) {
  const day = tile.time ? ` · ${tile.time.slice(0, 10)}` : "";
  return element("div", { class: "faint" }, dot(sensors.indexOf(tile.sensor)), tile.sensor + day);
}

/** A dot in a sensor's colour. */
export function dot(number) {
  const made = element("span", { class: "dot", "aria-hidden": "true" });
  made.style.color = sensorColour(number);
  return made;
}

function feedback(tile, page) {
  const button = (text, label, click) =>
    element("button", { type: "button", "aria-label": `${label} ${tile.id}`, click }, text);
  return element(
    "div",
    { class: "more" },
    button("More like", "More like", () => page.more(tile.row)),
    button("Less like", "Less like", () => page.less(tile.row)),
  );
}

function place(tile) {
  const side = (value, positive, negative) =>
    `${Math.abs(value).toFixed(3)}° ${value < 0 ? negative : positive}`;
  return `${side(tile.latitude, "N", "S")}, ${side(tile.longitude, "E", "W")}`;
}

function labels(all) {
  const more = all.length > LABELS ? ` +${all.length - LABELS}` : "";
  const text = all.slice(0, LABELS).join(", ") + more;
  return element("div", { class: "faint", title: all.join(", ") }, text);
}

const percent = (share) => `${Math.round(share * 100)} %`;
