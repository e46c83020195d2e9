// Which tiles may be hits.

import { byId, element } from "./element.js";
import { OTHERS } from "./state.js";

const FIELDS = { sensor: "sensor", since: "since", until: "until" };

/** Fills the form, and tells the page of every change. */
export function filterForm(page) {
  const { about, source } = page;
  const option = (value, text) => element("option", { value }, text);
  const choices = [option("", "all sensors"), ...about.sensors.map((key) => option(key, key))];
  if (about.sensors.length > 1) choices.unshift(option(OTHERS, "other sensors than the query's"));
  byId("sensor").append(...choices);
  byId("dates").hidden = !about.dated;
  byId("view-only").hidden = !(source.boxes && about.bounds && about.vendored.map);
  const form = byId("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => page.change(read()));
}

/** Shows what is asked. */
export function showFilters(state) {
  for (const [id, name] of Object.entries(FIELDS)) byId(id).value = state[name];
  byId("count").value = `${state.k}`;
  byId("in-view").checked = state.inView;
}

function read() {
  const found = { k: Number(byId("count").value) || 24, inView: byId("in-view").checked };
  for (const [id, name] of Object.entries(FIELDS)) found[name] = byId(id).value;
  return found;
}
