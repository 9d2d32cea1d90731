"use strict";
// Draws every figure with Vega in the colours of the page, and again when these or the width change.
(function () {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const themes = JSON.parse(document.getElementById("themes").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = Array.from(document.querySelectorAll("[data-spec]"));

  async function draw(plot) {
    const theme = dark.matches ? "dark" : "light";
    const legend = plot.clientWidth < 560 ? { columns: 1, labelLimit: plot.clientWidth - 60 } : {};
    const axis = plot.clientWidth < 560 ? { labelLimit: Math.max(90, plot.clientWidth / 3) } : {};
    const config = themes[theme];
    try {
      await window.vegaEmbed(plot, { ...specs[plot.dataset.spec], autosize: { type: "fit-x", contains: "padding" } }, {
        ast: true, actions: false, mode: "vega-lite", renderer: "svg", tooltip: { theme },
        config: { ...config, legend: { ...config.legend, ...legend }, axis: { ...config.axis, ...axis } },
        loader: { load: () => Promise.reject(new Error("the page loads nothing")) },
      });
      plot.dataset.drawn = theme;
    } catch (error) {
      plot.textContent = "This browser could not draw the figure: " + error.message;
      console.error(plot.dataset.spec, error);
    }
  }

  const all = () => plots.forEach(draw);
  dark.addEventListener("change", all);
  let width = window.innerWidth, waiting = 0;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    window.clearTimeout(waiting);
    waiting = window.setTimeout(all, 200);
  });
  all();
})();
