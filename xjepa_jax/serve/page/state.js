// What is asked, kept in the page's address: back, forward and bookmarks work.

export const OTHERS = "*other"; // sensors than the query's, as the server calls them

/** What is asked when nothing is; `sensors` are the archive's. */
export function nothing(sensors) {
  return {
    like: [], unlike: [], upload: "", sensor: sensors.length > 1 ? OTHERS : "",
    since: "", until: "", k: 24, inView: false,
  };
}

const rows = (text) =>
  (text ?? "").split(",").filter((part) => /^\d+$/.test(part)).map(Number);

/** What an address asks. */
export function fromAddress(search, sensors) {
  const given = new URLSearchParams(search);
  const state = nothing(sensors);
  state.like = rows(given.get("like"));
  state.unlike = rows(given.get("unlike"));
  for (const name of ["upload", "since", "until"]) state[name] = given.get(name) ?? "";
  const sensor = given.get("sensor");
  if (sensor === "" || sensor === OTHERS || sensors.includes(sensor)) state.sensor = sensor;
  const k = Number(given.get("k"));
  if (k >= 1 && k <= 1000) state.k = k;
  return state;
}

/** The parameters that a server is asked with; `bbox` of the map, or "". */
export function parameters(state, bbox = "") {
  const found = new URLSearchParams();
  if (state.like.length) found.set("like", state.like.join(","));
  if (state.unlike.length) found.set("unlike", state.unlike.join(","));
  for (const name of ["upload", "since", "until"]) if (state[name]) found.set(name, state[name]);
  found.set("sensor", state.sensor);
  found.set("k", state.k);
  if (bbox) found.set("bbox", bbox);
  return found;
}

/** The address of what is asked. */
export function toAddress(state, sensors) {
  const found = parameters(state);
  const plain = nothing(sensors);
  if (state.sensor === plain.sensor) found.delete("sensor");
  if (state.k === plain.k) found.delete("k");
  const text = found.toString();
  return text ? `?${text}` : window.location.pathname;
}

export const isAsked = (state) => state.like.length > 0 || state.upload !== "";
