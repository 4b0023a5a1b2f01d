// Notifications of the browser, where a person has asked for them: remembered here, allowed by the browser, shown while a page is open.
const key = "nopegpt.notices";

function wanted() {
  try { return localStorage.getItem(key) === "on"; } catch { return false; }
}

/** on, off, blocked (the browser's settings forbid it) or missing (it cannot). */
export function state() {
  if (!("Notification" in window)) return "missing";
  if (Notification.permission === "denied") return "blocked";
  return Notification.permission === "granted" && wanted() ? "on" : "off";
}

/** Turns them on, which asks for the browser's permission, or off. Gives the state after it. */
export async function turn(on) {
  if (on && "Notification" in window && Notification.permission === "default") await Notification.requestPermission();
  try { localStorage.setItem(key, on ? "on" : "off"); } catch { /* a private window forgets it */ }
  return state();
}

/** Shows one; the same tag from another open page replaces it. Title and text are shown as they are: no markup is read. */
export function show(run, tag, title, text) {
  if (state() !== "on") return;
  const shown = new Notification(title, { body: text, tag, icon: "icon.svg" });
  shown.onclick = () => {
    window.focus();
    window.Blazor.navigateTo(`runs/${encodeURIComponent(run)}`);
    shown.close();
  };
}
