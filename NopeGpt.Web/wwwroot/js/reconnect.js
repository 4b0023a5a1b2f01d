// What the page does when its connection to the dashboard is lost: say so, try again, and load anew where the server has
// forgotten the page (a restart). Every page rebuilds itself from its address and the store, so nothing is lost.
const box = document.getElementById("components-reconnect-modal");
let trying = false;

async function serverAnswers() {
  try { return (await fetch("health", { cache: "no-store" })).ok; } catch { return false; }
}

async function tryAgain() {
  if (trying) return;
  trying = true;
  for (;;) {
    if (await serverAnswers()) {
      try {
        if (await Blazor.reconnect()) break;
      } catch { /* the server went away again between the two questions */ }
      location.reload();
      return;
    }
    await new Promise(done => setTimeout(done, 2000));
  }
  trying = false;
}

box.addEventListener("components-reconnect-state-changed", e => {
  const state = e.detail.state;
  if (state === "show") box.classList.add("shown");
  else if (state === "hide") box.classList.remove("shown");
  else if (state === "failed") tryAgain();
  else if (state === "rejected") location.reload();
});

// A tab that slept comes back to a dead connection: do not wait for the next slow attempt.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && box.classList.contains("components-reconnect-failed")) tryAgain();
});
