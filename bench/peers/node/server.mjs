// pg-listen and ws in several processes: `node server.mjs PORT WORKERS`; the database is in PGHOST and the other variables of libpq.
import cluster from "node:cluster";
import http from "node:http";
import createSubscriber from "pg-listen";
import { WebSocketServer } from "ws";

const [port, workers] = process.argv.slice(2).map(Number);

async function serve() {
  const matches = new Map();

  const server = http.createServer();
  const sockets = new WebSocketServer({ server });
  sockets.on("headers", (headers) => headers.push(`X-Worker: ${process.pid}`));
  sockets.on("connection", (socket, request) => {
    const match = request.url.split("/")[1];
    const clients = matches.get(match) ?? new Set();
    matches.set(match, clients.add(socket));
    socket.on("close", () => clients.delete(socket));
  });

  const subscriber = createSubscriber({});
  subscriber.notifications.on("match_change", (payload) => {
    const text = JSON.stringify({ type: "match-update", ...payload });
    for (const client of matches.get(String(payload.match_id)) ?? []) client.send(text);
  });
  subscriber.events.on("error", (error) => {
    console.error("Fatal database connection error:", error);
    process.exit(1);
  });
  await subscriber.connect();
  await subscriber.listenTo("match_change");

  server.listen(port, "127.0.0.1", () => console.log("listening"));
}

if (cluster.isPrimary) {
  for (let worker = 0; worker < workers; worker++) cluster.fork();
} else {
  await serve();
}
