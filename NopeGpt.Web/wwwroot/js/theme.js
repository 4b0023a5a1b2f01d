// Runs before the first paint, so that a dark room sees no white flash. The layout asks it for the remembered choice.
(() => {
  const key = "nopegpt.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const read = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const dark = () => { const chosen = read(); return chosen ? chosen === "dark" : system.matches; };
  let listener = null;

  const apply = () => {
    const theme = dark() ? "dark" : "light";
    document.documentElement.dataset.theme = theme;
    // For the server's first rendering of the next page.
    document.cookie = `nopegpt-theme=${theme}; path=/; max-age=31536000; samesite=strict`;
    listener?.invokeMethodAsync("ThemeChanged", dark()).catch(() => { /* the circuit has gone */ });
  };

  window.nopeTheme = {
    isDark: dark,
    choose(value) {
      try { localStorage.setItem(key, value ? "dark" : "light"); } catch { /* a private window forgets it */ }
      apply();
    },
    listen(reference) { listener = reference; },
  };
  system.addEventListener("change", apply);
  addEventListener("storage", e => { if (e.key === key) apply(); });
  apply();
})();
