// One WebSocket that comes back by itself, whatever closed it.
//
//   const connection = connect(url, {
//     on: (message) => {},   // every parsed message but ping, in order
//     state: (s) => {},      // {name: "connecting" | "live" | "reconnecting", attempt}
//   });
//   connection.close();

const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;
const FIRST_MESSAGE_WITHIN = 15_000; // connecting included
const NEXT_MESSAGE_WITHIN = 75_000; // the server pings every 30 s

export function connect(url, { on, state }) {
  let socket = null;
  let live = false; // this socket has brought a message
  let attempt = 0; // failures since a message was last heard
  let deadline = 0; // timer: a path can die without a close
  let retry = 0; // timer: until the next attempt

  function open() {
    clearTimeout(retry);
    retry = 0;
    if (attempt === 0) state({ name: "connecting", attempt });
    socket = new WebSocket(url);
    socket.onmessage = ({ data }) => heard(data);
    socket.onclose = lost;
    expectWithin(FIRST_MESSAGE_WITHIN);
  }

  function expectWithin(milliseconds) {
    clearTimeout(deadline);
    deadline = setTimeout(lost, milliseconds);
  }

  function heard(text) {
    expectWithin(NEXT_MESSAGE_WITHIN);
    const message = JSON.parse(text);
    if (message.type === "ping") {
      socket.send('{"type":"pong"}');
      return;
    }
    attempt = 0;
    if (!live) state({ name: "live", attempt });
    live = true;
    on(message);
  }

  function lost() {
    drop();
    attempt += 1;
    const ceiling = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1));
    retry = setTimeout(open, ceiling * (0.5 + Math.random() / 2));
    state({ name: "reconnecting", attempt });
  }

  function drop() {
    clearTimeout(deadline);
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
    socket = null;
    live = false;
  }

  // Somebody looks again, or the network is back: no reason to sit out the delay.
  function now() {
    if (retry && !document.hidden) open();
  }

  window.addEventListener("online", now);
  document.addEventListener("visibilitychange", now);
  open();

  return {
    close() {
      window.removeEventListener("online", now);
      document.removeEventListener("visibilitychange", now);
      clearTimeout(retry);
      drop();
    },
  };
}
