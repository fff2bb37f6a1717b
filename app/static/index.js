// The front page: what /readyz says, as it says it.

const EVERY = 5_000;
const NO_ANSWER_AFTER = 4_000;

const $ = (id) => document.getElementById(id);

const PATHS = {
  redis: "A canary has just passed through PostgreSQL, the listener, Redis and the worker that answered.",
  postgres: "A canary has just passed through PostgreSQL and the worker that answered. The workers LISTEN themselves.",
};

function show(name, title, detail, reasons = []) {
  $("ready").dataset.ready = name;
  if ($("ready-title").textContent !== title) $("ready-title").textContent = title;
  $("ready-detail").textContent = detail;
  $("ready-reasons").replaceChildren(
    ...reasons.map((reason) => {
      const item = document.createElement("li");
      item.textContent = String(reason);
      return item;
    }),
  );
}

async function ask() {
  let answer;
  try {
    const response = await fetch("readyz", { cache: "no-store", signal: AbortSignal.timeout(NO_ANSWER_AFTER) });
    answer = await response.json();
    if (typeof answer?.ready !== "boolean") throw new TypeError("not an answer of /readyz");
  } catch {
    show("unknown", "No answer", "The server could not be asked whether it is ready. Asking again.");
    return;
  }
  const mode = /^postgres/i.test(answer.mode) ? "postgres" : /^redis/i.test(answer.mode) ? "redis" : "";
  if (mode) document.body.dataset.mode = mode;
  const named = { redis: " · Redis mode", postgres: " · PostgreSQL mode" }[mode] ?? "";
  if (answer.ready) show("yes", `Ready${named}`, PATHS[mode] ?? "");
  else show("no", `Not ready${named}`, "One of the workers says why:", answer.reasons ?? []);
}

async function keepAsking() {
  if (!document.hidden) await ask();
  setTimeout(keepAsking, EVERY);
}

keepAsking();
