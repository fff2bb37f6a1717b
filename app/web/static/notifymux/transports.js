// The two transports call `onMessage` with the text of every message, and `onClose` once, unless `close` was called.
// `send` returns whether something can be sent; over a WebSocket that is so after `onOpen`.

export function openWebSocket(url, { socketClass, onOpen, onMessage, onClose }) {
  const socket = new socketClass(url);
  socket.onopen = onOpen;
  socket.onmessage = ({ data }) => onMessage(data);
  socket.onclose = ({ code }) => onClose({ code });
  socket.onerror = () => {}; // a close event follows
  return {
    send(text) {
      socket.send(text);
      return true;
    },
    close() {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    },
  };
}

// Uses fetch instead of EventSource: fetch gives the status of a refused request and sends the token in a header.
export function openEventStream(url, { token, onMessage, onClose }) {
  const abortController = new AbortController();
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  read().then(onClose);
  return { send: () => false, close: () => abortController.abort() };

  async function read() {
    const options = { headers, cache: "no-store", signal: abortController.signal };
    const response = await fetch(url, options).catch(() => null);
    if (!response) return { reason: "no connection" };
    if (!response.ok) return refusal(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { value = "", done } = await reader.read().catch(() => ({ done: true }));
      if (done) return { reason: "the stream ended" };
      const lines = (buffer + value).split("\n");
      buffer = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) onMessage(line.slice(6));
    }
  }
}

/**
 * Returns why a request failed. `status` is only there if notifymux itself responded: what a proxy says passes with its
 * deploy. Also for the status page.
 *
 * @param {Response} response
 * @returns {Promise<{ status?: number, wait: number, reason: string }>}
 */
export async function refusal(response) {
  const body = await response.json().catch(() => null);
  const isOwn = body?.server === "notifymux";
  const wait = 1000 * (Number(response.headers.get("retry-after")) || 0);
  const reason = isOwn ? String(body.error) : `HTTP ${response.status}`;
  return { status: isOwn ? response.status : undefined, wait, reason };
}
