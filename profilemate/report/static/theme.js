"use strict";
// Before the first paint: the theme that was chosen on this page earlier, where the browser lets it keep that.
(function () {
  let chosen = null;
  try {
    chosen = window.localStorage.getItem("profilemate-theme");
  } catch (error) {
    chosen = null;
  }
  if (chosen === "light" || chosen === "dark") {
    document.documentElement.dataset.theme = chosen;
  }
})();
