// The notifymux client for browsers: receives the events of matches and reconnects automatically.
//
//   import { connect } from "./static/notifymux.js";
//
//   const connection = connect({ match: 7 });
//   connection.on("initial-load", (message) => {}); // a snapshot, or "recovered": no event was missed
//   connection.on("resync", (message) => {}); // a gap: replace the state with this snapshot
//   connection.on("match-update", (message) => {});
//   connection.onState((state) => {});
//   connection.close();
//
//   const several = connect({ matches: [1, 2] }); // over one socket for the page, or for all tabs
//   several.add(3);
//   several.remove(1);
//   several.on("match-update", ({ match_id, data }) => {});
//
// docs/protocol.md describes the messages. After a connection is lost, the client resumes from the last id it received,
// with exponential backoff and jitter. If WebSockets fail to open, it uses server-sent events instead. While the page is
// hidden, it does not reconnect. When the device or the page wakes up, it asks whether the connection is still alive.

import { MatchConnection } from "./notifymux/match_connection.js";
import { checkMatch } from "./notifymux/match_ids.js";
import { MatchesConnection } from "./notifymux/matches_connection.js";
import { sharedSocket } from "./notifymux/shared_socket.js";

/**
 * Connects to a match, or to several. The types are in notifymux.d.ts.
 *
 * @param {MatchOptions | MatchesOptions} options
 * @returns {MatchConnection | MatchesConnection}
 * @throws {TypeError} a match is missing, or `base` is not a URL
 */
export function connect({ match, matches, base = new URL("..", import.meta.url), ...rest }) {
  const options = { ...rest, base: new URL(base, globalThis.document?.baseURI) };
  if (matches === undefined) {
    checkMatch(match);
    return new MatchConnection({ ...options, match });
  }
  if (match !== undefined) throw new TypeError("connect() takes either match or matches");
  matches.forEach(checkMatch);
  return new MatchesConnection(sharedSocket(options), matches);
}
