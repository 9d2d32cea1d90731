"use strict";
// What the page does beside drawing: the theme, copying, printing, all rows of a table, and saving them.
(function () {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const report = (window.profilemate = { onTheme: [], beforePrint: [] });

  report.isDark = function () {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  };

  report.dataOf = function (name) {
    const text = document.getElementById("spec-" + name);
    return text ? JSON.parse(text.textContent) : null;
  };

  function keep(theme) {
    try {
      window.localStorage.setItem("profilemate-theme", theme);
    } catch (error) {
      return; // a page of a file may not be allowed to: the choice then lasts as long as the page
    }
  }

  function themeChanged() {
    document.getElementById("theme-switch").textContent = report.isDark() ? "Light page" : "Dark page";
    report.onTheme.forEach((listener) => listener());
  }

  function switchTheme() {
    root.dataset.theme = report.isDark() ? "light" : "dark";
    keep(root.dataset.theme);
    themeChanged();
  }

  report.save = function (name, url) {
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
  };

  function copy(button) {
    const line = button.parentElement.querySelector("code");
    const range = document.createRange();
    range.selectNodeContents(line);
    window.getSelection().removeAllRanges();
    window.getSelection().addRange(range);
    // The clipboard is not there for files; what is selected can be copied by hand in any case.
    const done = navigator.clipboard ? navigator.clipboard.writeText(line.textContent) : Promise.reject();
    done.then(
      () => (button.textContent = "Copied"),
      () => (button.textContent = document.execCommand("copy") ? "Copied" : "Selected"),
    );
  }

  function packedOf(details) {
    const figure = details.closest("figure").querySelector("[data-spec]").dataset.spec;
    return { figure, packed: report.dataOf(figure).datasets[details.dataset.dataset] };
  }

  function textOf(value) {
    return value === null ? "" : String(value);
  }

  function showAllRows(button) {
    const details = button.closest("details");
    const body = details.querySelector("tbody");
    const numeric = Array.from(details.querySelectorAll("th"), (cell) => cell.className);
    const rows = document.createDocumentFragment();
    packedOf(details).packed.rows.forEach((row) => {
      const line = rows.appendChild(document.createElement("tr"));
      row.forEach((value, place) => {
        const cell = line.appendChild(document.createElement("td"));
        cell.className = numeric[place];
        cell.appendChild(document.createElement("bdi")).textContent = textOf(value);
      });
    });
    body.replaceChildren(rows);
    details.querySelector(".excerpt").remove();
    button.remove();
    details.querySelector(".scroller").focus();
  }

  function csvCell(value) {
    const text = textOf(value);
    const safe = /^[=+\-@\t\r]/.test(text) && typeof value === "string" ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  }

  function saveCsv(button) {
    const { figure, packed } = packedOf(button.closest("details"));
    const lines = [packed.columns, ...packed.rows].map((row) => row.map(csvCell).join(","));
    const url = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    report.save(figure + ".csv", url);
    window.setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  async function printPage() {
    const button = document.getElementById("print-page");
    button.disabled = true;
    button.textContent = "Drawing all figures";
    await Promise.all(report.beforePrint.map((prepare) => prepare()));
    button.disabled = false;
    button.textContent = "Print";
    window.print();
  }

  const ACTIONS = [
    ["[data-copy]", copy],
    ["[data-all-rows]", showAllRows],
    ["[data-save=csv]", saveCsv],
  ];

  document.addEventListener("click", (event) => {
    for (const [selector, act] of ACTIONS) {
      const button = event.target.closest(selector);
      if (button) act(button);
    }
  });
  document.querySelectorAll("[data-needs-script], [data-copy], [data-all-rows], [data-save]").forEach((element) => {
    element.hidden = false;
  });
  document.getElementById("theme-switch").addEventListener("click", switchTheme);
  document.getElementById("print-page").addEventListener("click", printPage);
  system.addEventListener("change", themeChanged);
  themeChanged();

  const links = new Map(Array.from(document.querySelectorAll(".contents a"), (link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id).setAttribute("aria-current", "true");
      });
    },
    { rootMargin: "-10% 0px -80% 0px" },
  );
  document.querySelectorAll("main section").forEach((section) => seen.observe(section));
})();
