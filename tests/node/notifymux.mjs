// Prints every message and state of notifymux.js with the WebSocket class of ws: node notifymux.mjs MODULE OPTIONS
import WebSocket from "ws";

const [module, options] = process.argv.slice(2);
const { connect } = await import(module);
const connection = connect({ ...JSON.parse(options), WebSocket });
connection.on("*", (message) => console.log(JSON.stringify(message)));
connection.onState((state) => console.log(JSON.stringify({ state })));
