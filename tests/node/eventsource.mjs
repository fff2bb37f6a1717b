// Prints every message with the id of its server-sent event: node eventsource.mjs URL
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);
source.onmessage = ({ data, lastEventId }) => console.log(JSON.stringify({ lastEventId, ...JSON.parse(data) }));
source.onerror = ({ code, message }) => console.error(code, message);
