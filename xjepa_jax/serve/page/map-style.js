// How the map looks: land and borders, then the archive's tiles. No text, so no glyphs are needed.

import { isDark } from "./colours.js";

const LIGHT = {
  water: "#dfe8ef", land: "#f6f5f0", coast: "#a9b6c1", border: "#cfd5da",
  tile: "#59636e", hit: "#b04a00", asked: "#00704a",
};
const DARK = {
  water: "#1a222b", land: "#2a3038", coast: "#56626e", border: "#434c56",
  tile: "#a2abb5", hit: "#f2a365", asked: "#56c596",
};
export const NO_FEATURES = { type: "FeatureCollection", features: [] };

/** A MapLibre style. `land` and `borders` are GeoJSON. */
export function mapStyle(land, borders) {
  const colours = isDark() ? DARK : LIGHT;
  const geojson = (data) => ({ type: "geojson", data });
  const outline = (source, colour, width) => ({
    id: `${source}-line`, type: "line", source, paint: { "line-color": colour, "line-width": width },
  });
  const area = (source, colour, opacity) => ({
    id: `${source}-fill`, type: "fill", source,
    paint: { "fill-color": colour, "fill-opacity": opacity },
  });
  return {
    version: 8,
    sources: {
      land: geojson(land), borders: geojson(borders), tiles: geojson(NO_FEATURES),
      points: geojson(NO_FEATURES), hits: geojson(NO_FEATURES), asked: geojson(NO_FEATURES),
    },
    layers: [
      { id: "water", type: "background", paint: { "background-color": colours.water } },
      area("land", colours.land, 1),
      outline("land", colours.coast, 0.8),
      outline("borders", colours.border, 0.8),
      {
        // From afar an outline is less than a pixel.
        id: "points", type: "circle", source: "points",
        paint: {
          "circle-color": colours.tile,
          "circle-radius": ["interpolate", ["linear"], ["zoom"], 2, 2, 9, 3.5],
          "circle-opacity": 0.75,
        },
      },
      area("tiles", colours.tile, 0.12),
      outline("tiles", colours.tile, 1),
      area("hits", colours.hit, 0.35),
      outline("hits", colours.hit, 2.5),
      outline("asked", colours.asked, 4),
    ],
  };
}
