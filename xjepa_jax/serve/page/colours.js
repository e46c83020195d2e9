// Colours of sensors, at least 4.5:1 on the page's paper, light or dark.

const LIGHT = ["#0b62a8", "#b04a00", "#8a3fa0", "#00704a", "#7a5c00", "#b3245c"];
const DARK = ["#6db6f2", "#f2a365", "#cf9be0", "#56c596", "#d9bf5a", "#f28bb0"];

const scheme = window.matchMedia("(prefers-color-scheme: dark)");

export const isDark = () => scheme.matches;

export const onScheme = (listener) => scheme.addEventListener("change", listener);

/** The colour of the sensor with this number in the archive. */
export function sensorColour(number) {
  const colours = isDark() ? DARK : LIGHT;
  return colours[number % colours.length];
}
