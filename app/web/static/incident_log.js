// The incident log: gaps, failovers and other incidents, newest first.

import { $, element, reconcile, setText } from "./dom.js";
import { count, moment } from "./format.js";

const MAX_ROWS = 50;

export function renderIncidentLog({ at, ledger, totals }) {
  setText($("total-gaps"), count(totals.gaps));
  setText($("total-failovers"), count(totals.failovers));
  setText($("total-put-back"), count(totals.put_back));
  setText($("total-suppressed"), count(totals.suppressed));
  const entries = ledger.slice(0, MAX_ROWS);
  reconcile($("incidents").tBodies[0], entries, JSON.stringify, (entry) => createRow(entry, at));
  $("incidents").hidden = !entries.length;
  $("no-incidents").hidden = entries.length > 0;
}

function createRow({ at, kind, who, text }, now) {
  const row = element("tr");
  const time = element("time", "", moment(at, now));
  time.dateTime = new Date(at * 1000).toISOString();
  const timeCell = element("td", "when");
  timeCell.append(time);
  const tag = element("span", "kind", kind);
  tag.dataset.kind = kind;
  const kindCell = element("td");
  kindCell.append(tag);
  row.append(timeCell, kindCell, element("td", "who", who), element("td", "text", text));
  return row;
}
