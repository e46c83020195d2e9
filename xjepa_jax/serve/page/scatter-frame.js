// The scatter plot in a frame without an origin (see security.py): it is sent points, says which
// one was chosen, and can reach nothing else. A classic script, for such a frame loads no modules.

"use strict";

(() => {
  const canvas = document.getElementById("plot");
  const say = (message) => window.parent.postMessage(message, "*"); // no secrets: a number
  let plot = null;
  let points = [];
  let current = null;

  const size = () => ({ width: window.innerWidth, height: window.innerHeight });

  // A frame that was never in sight may have no size yet.
  async function sized() {
    while (!window.innerWidth || !window.innerHeight) {
      await new Promise((resolve) => window.addEventListener("resize", resolve, { once: true }));
    }
  }

  async function draw(message) {
    await sized();
    if (plot === null) {
      plot = window.reglScatterplot.createScatterplot({
        canvas,
        ...size(),
        pointSize: 5,
        pointSizeSelected: 4,
        pointOutlineWidth: 2,
        opacity: 0.85,
        colorBy: "category",
        actionKeyMap: {},
        lassoOnLongPress: false,
        deselectOnDblClick: false,
        deselectOnEscape: false,
        annotationLineWidth: 1,
      });
      plot.subscribe("select", ({ points: [index] }) => say({ kind: "chosen", index }));
      plot.subscribe("pointover", (index) => say({ kind: "over", index }));
      plot.subscribe("pointout", () => say({ kind: "over", index: null }));
      window.addEventListener("resize", () => {
        if (window.innerWidth && window.innerHeight) plot.set(size());
      });
    }
    points = message.points;
    document.body.style.backgroundColor = message.background;
    plot.set({
      backgroundColor: message.background,
      pointColor: message.colours,
      pointColorActive: message.ink,
      pointColorHover: message.ink,
    });
    await plot.draw(points);
    const ends = (pair) => pair.map((index) => points[index].slice(0, 2));
    const lineColor = message.line;
    await plot.drawAnnotations(message.pairs.map((pair) => ({ vertices: ends(pair), lineColor })));
    say({ kind: "drawn", count: points.length });
  }

  // The nearest point within 45 degrees of a direction.
  function towards(dx, dy) {
    if (current === null) return 0;
    const [x, y] = points[current];
    let best = current;
    let least = Infinity;
    points.forEach(([px, py], index) => {
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      const away = along + 2 * across;
      if (index !== current && along > 0 && across <= along && away < least) {
        best = index;
        least = away;
      }
    });
    return best;
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  canvas.addEventListener("keydown", (event) => {
    if (plot === null || !points.length) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      event.preventDefault();
      current = towards(...arrow);
      plot.hover(current, { preventEvent: true });
      say({ kind: "over", index: current });
    } else if (event.key === "Enter" && current !== null) {
      say({ kind: "chosen", index: current });
    }
  });

  window.addEventListener("message", async ({ source, data }) => {
    if (source !== window.parent) return;
    try {
      if (data.kind === "points") await draw(data);
      if (data.kind === "marks" && plot !== null) {
        plot.select(data.indices, { preventEvent: true });
        if (data.indices.length) [current] = data.indices;
      }
    } catch (error) {
      say({ kind: "failed", reason: `${error.message ?? error}` });
    }
  });

  if (window.reglScatterplot) say({ kind: "ready" });
  else say({ kind: "failed", reason: "its script did not load" });
})();
