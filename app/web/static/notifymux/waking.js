// When a page or its device wakes up. Also for the status page.

export const ANSWER_TIMEOUT_MS = 3_000; // after waking up
const IDLE_CONNECTIONS = 5; // browsers keep up to six for a host over HTTP/1.1; the event stream takes one
const CLOCK_INTERVAL_MS = 1_000;
const CLOCK_JUMP_MS = 5_000; // from one look at the clock to the next: the device slept

/**
 * Calls `wake` when the page becomes visible or returns from the back-forward cache, when the network returns, and when
 * the device has slept.
 *
 * @param {() => void} wake
 * @param {AbortSignal} signal - ends it
 */
export function onWake(wake, signal) {
  const wakeIfVisible = () => isHidden() || wake();
  globalThis.addEventListener?.("online", wakeIfVisible, { signal });
  globalThis.addEventListener?.("pageshow", wakeIfVisible, { signal });
  globalThis.document?.addEventListener("visibilitychange", wakeIfVisible, { signal });
  let last = Date.now();
  const timer = setInterval(() => {
    const elapsed = Date.now() - last;
    last += elapsed;
    if (elapsed > CLOCK_JUMP_MS) wakeIfVisible();
  }, CLOCK_INTERVAL_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/**
 * Has the browser drop its idle connections to notifymux if they are dead: it would send the next requests over them.
 * It closes a connection over HTTP/1.1 whose request is aborted.
 *
 * @param {string | URL} base - the URL of notifymux
 */
export function dropDeadConnections(base) {
  for (let request = 0; request < IDLE_CONNECTIONS; request += 1) {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    fetch(new URL("healthz", base), { mode: "no-cors", cache: "no-store", signal }).catch(() => {});
  }
}

/** Whether the page is hidden. Retries wait until it is visible. */
export function isHidden() {
  return globalThis.document?.hidden ?? false;
}
