"use strict";
// Draws each figure with Vega when it comes near the window, in the colours of the page and as wide as there is room.
(function () {
  const report = window.profilemate;
  const NARROW = 560;
  const MANY_MARKS = 4000;
  const NEAR = "400px";
  const THEMES = JSON.parse(document.getElementById("themes").textContent);
  const drawn = new Map();

  function unpacked(packed) {
    return packed.rows.map((row) => Object.fromEntries(packed.columns.map((name, place) => [name, row[place]])));
  }

  // Concatenated charts do not follow their container: each gets its width here, and stands below the one before on a phone.
  function fitted(spec, width) {
    if (spec.hconcat && width < NARROW) {
      const { hconcat, ...rest } = spec;
      return { ...rest, vconcat: hconcat.map((child) => fitted(child, width)) };
    }
    if (spec.hconcat) {
      const room = width / spec.hconcat.length - 12;
      return { ...spec, hconcat: spec.hconcat.map((child) => fitted(child, room)) };
    }
    if (spec.vconcat) return { ...spec, vconcat: spec.vconcat.map((child) => fitted(child, width)) };
    if (spec.facet || spec.repeat || spec.spec) return spec;
    const steps = spec.width && typeof spec.width === "object";
    return steps ? spec : { ...spec, width: Math.max(140, width), autosize: undefined };
  }

  function isWhole(spec) {
    return !(spec.hconcat || spec.vconcat || spec.concat || spec.facet || spec.repeat);
  }

  function specFor(plot) {
    const width = plot.clientWidth;
    const { datasets: packed, ...whole } = report.dataOf(plot.dataset.spec);
    const datasets = Object.fromEntries(Object.entries(packed).map(([name, one]) => [name, unpacked(one)]));
    const spec = width < NARROW ? narrowed(whole, width) : whole;
    const sized = isWhole(spec)
      ? { ...fitted(spec, width), autosize: { type: "fit-x", contains: "padding" } }
      : fitted(spec, width - (width < NARROW ? 90 : 150));
    return { ...sized, datasets };
  }

  const isText = (layer) => (layer.mark && layer.mark.type ? layer.mark.type : layer.mark) === "text";

  // On a phone a legend is one column, and words inside the plot are left out (they are in the table): nothing is cut off.
  function narrowed(part, width) {
    if (Array.isArray(part)) return part.map((one) => narrowed(one, width));
    if (!part || typeof part !== "object") return part;
    const found = Object.fromEntries(Object.entries(part).map(([name, one]) => [name, narrowed(one, width)]));
    if (Array.isArray(found.layer)) found.layer = found.layer.filter((layer) => !isText(layer));
    if (found.legend) found.legend = { ...found.legend, columns: 1, labelLimit: width - 120 };
    return found;
  }

  function config(theme, width) {
    const chosen = THEMES[theme];
    if (width >= NARROW) return chosen;
    const axis = { ...chosen.axis, labelLimit: Math.max(80, width / 3) };
    return { ...chosen, axis, legend: { ...chosen.legend, columns: 1, labelLimit: width - 120 } };
  }

  function manyMarks(spec) {
    return Object.values(spec.datasets).reduce((sum, rows) => sum + rows.length, 0) > MANY_MARKS;
  }

  async function draw(plot, theme) {
    const before = drawn.get(plot);
    const spec = specFor(plot);
    const options = {
      ast: true, // expressions by Vega's interpreter: the page's policy allows no code made from text
      actions: false,
      config: config(theme, plot.clientWidth),
      mode: "vega-lite",
      renderer: manyMarks(spec) ? "canvas" : "svg",
      tooltip: { theme: theme === "dark" ? "dark" : "default" },
      loader: { load: () => Promise.reject(new Error("the page loads nothing")) },
    };
    const state = { width: plot.clientWidth, theme, result: null };
    drawn.set(plot, state);
    try {
      state.result = await window.vegaEmbed(plot, spec, options);
      plot.dataset.drawn = theme;
    } catch (error) {
      plot.textContent = "This browser could not draw the figure: " + error.message;
      plot.dataset.drawn = "failed";
      console.error(plot.dataset.spec, error);
    }
    if (before && before.result) before.result.finalize();
  }

  const theme = () => (report.isDark() ? "dark" : "light");
  const plots = Array.from(document.querySelectorAll("[data-spec]"));
  const near = new IntersectionObserver(
    (entries) => {
      entries.filter((entry) => entry.isIntersecting && entry.target.clientWidth).forEach((entry) => {
        near.unobserve(entry.target);
        draw(entry.target, theme());
      });
    },
    { rootMargin: NEAR },
  );
  plots.forEach((plot) => near.observe(plot));

  function redraw(plot) {
    if (drawn.has(plot)) draw(plot, theme());
  }

  let waiting = 0;
  new ResizeObserver(() => {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(() => {
      plots.filter((plot) => drawn.has(plot) && plot.clientWidth && drawn.get(plot).width !== plot.clientWidth).forEach(redraw);
    }, 200);
  }).observe(document.querySelector("main"));

  report.onTheme.push(() => plots.forEach(redraw));
  report.beforePrint.push(() => Promise.all(plots.filter((plot) => plot.clientWidth).map((plot) => draw(plot, "light"))));
  window.addEventListener("afterprint", () => {
    plots.filter((plot) => drawn.has(plot) && drawn.get(plot).theme !== theme()).forEach(redraw);
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-save=svg], [data-save=png]");
    if (!button) return;
    const plot = button.closest("figure").querySelector("[data-spec]");
    if (!drawn.has(plot)) await draw(plot, theme());
    const kind = button.dataset.save;
    const url = await drawn.get(plot).result.view.toImageURL(kind, kind === "png" ? 2 : 1);
    report.save(plot.dataset.spec + "." + kind, url);
  });
})();
