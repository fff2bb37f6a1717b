// What happened: gaps, failovers and what else is worth remembering, newest first.

import { $, element, keep, setText } from "./dom.js";
import { count, moment } from "./format.js";

const SHOWN = 50;

export function renderLedger({ at, ledger, totals }) {
  setText($("total-gaps"), count(totals.gaps));
  setText($("total-failovers"), count(totals.failovers));
  setText($("total-put-back"), count(totals.put_back));
  setText($("total-suppressed"), count(totals.suppressed));
  const entries = ledger.slice(0, SHOWN);
  keep($("ledger").tBodies[0], entries, JSON.stringify, (entry) => makeRow(entry, at));
  $("ledger").hidden = !entries.length;
  $("no-ledger").hidden = entries.length > 0;
}

function makeRow({ at, kind, who, text }, now) {
  const row = element("tr");
  const when = element("time", "", moment(at, now));
  when.dateTime = new Date(at * 1000).toISOString();
  const first = element("td", "when");
  first.append(when);
  const what = element("td");
  const tag = element("span", "kind", kind);
  tag.dataset.kind = kind;
  what.append(tag);
  row.append(first, what, element("td", "who", who), element("td", "text", text));
  return row;
}
