// One connection to the metrics hub for all charts of the page. It only says that a run has something new; the numbers themselves
// come over HTTP, so that a lost message or a reconnect costs nothing.
import "../vendor/signalr/signalr.min.js";

const followers = new Map(); // run id -> Set of functions
let connection = null;
let starting = null;

async function connected() {
  if (connection === null) {
    connection = new signalR.HubConnectionBuilder()
      .withUrl("hubs/metrics")
      .withAutomaticReconnect({ nextRetryDelayInMilliseconds: context => Math.min(10_000, 500 * 2 ** context.previousRetryCount) })
      .configureLogging(signalR.LogLevel.None)
      .build();
    connection.on("Events", (run, events) => tell(run, events));
    connection.onreconnected(() => { for (const run of followers.keys()) join(run); });
  }
  if (connection.state === "Disconnected") starting ??= connection.start().finally(() => { starting = null; });
  await starting;
}

function tell(run, events) {
  for (const changed of followers.get(run) ?? []) changed(events);
}

async function join(run) {
  try {
    // The newest sequence: what is older is read over HTTP after this answer.
    await connection.invoke("Follow", run, Number.MAX_SAFE_INTEGER);
    tell(run, []);
  } catch { /* the slow poll of the chart covers it */ }
}

/** Calls changed(events) when the run reports something; events may be empty after a reconnect. Returns the function that ends it. */
export function follow(run, changed) {
  const first = !followers.has(run);
  if (first) followers.set(run, new Set());
  followers.get(run).add(changed);
  if (first) connected().then(() => join(run)).catch(() => { /* as above */ });
  return () => {
    const set = followers.get(run);
    set?.delete(changed);
    if (set?.size === 0) {
      followers.delete(run);
      if (connection?.state === "Connected") connection.invoke("Unfollow", run).catch(() => { });
    }
  };
}

/** True while the hub reports by itself; otherwise a chart asks now and then. */
export const isLive = () => connection?.state === "Connected";
