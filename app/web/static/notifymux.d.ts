/** The last three are final: the server refused the client, the same client id connected again, `close()` was called. */
export type StateName = "connecting" | "live" | "reconnecting" | "refused" | "replaced" | "closed";

export interface State {
  name: StateName;
  /** Consecutive failures. */
  attempt: number;
  /** An explanation for people. */
  reason?: string;
}

export type MatchId = string | number;

/** A snapshot, or `recovered`: no event was missed, and the state that the page has stays. */
export interface InitialLoad<Snapshot = unknown> {
  type: "initial-load";
  recovered: boolean;
  id: string | null;
  match_id: MatchId;
  data: Snapshot | null;
  error?: string;
}

/** A gap: the snapshot replaces the state. */
export interface Resync<Snapshot = unknown> {
  type: "resync";
  id: string | null;
  match_id: MatchId;
  data: Snapshot | null;
  error?: string;
}

/** A gap, whose `resync` follows: until then the state may be old. */
export interface Stale {
  type: "stale";
  id: null;
  match_id: MatchId;
}

/** An event. Which further fields there are depends on its type. */
export interface Update<Row = unknown> {
  type: string;
  id: string | null;
  channel: string;
  match_id: MatchId;
  operation: string | null;
  data: Row | null;
  error?: string;
  [field: string]: unknown;
}

/** Of several matches, this one is not served: it is removed from the connection. Without `match_id`, of another request. */
export interface Refused {
  type: "refused";
  match_id?: MatchId;
  code: "forbidden" | "unavailable" | "too-many" | "too-fast" | "malformed" | "token" | (string & {});
  reason: string;
}

/** The server goes on with the token of `renew()`. */
export interface Renewed {
  type: "renewed";
}

export interface Messages {
  "initial-load": InitialLoad<any>;
  resync: Resync<any>;
  stale: Stale;
  refused: Refused;
  renewed: Renewed;
}

export type Message = Messages[keyof Messages] | Update<any>;

export interface Options {
  /** The URL of notifymux; by default where this module was loaded from. */
  base?: string | URL;
  /** Identifies this connection at the server; random by default. */
  clientId?: string;
  /** A function is called before every attempt, and once more before a refusal is final. */
  token?: string | (() => string | Promise<string>);
  /** The server's PING_INTERVAL in seconds; 30 by default. */
  pingInterval?: number;
  /** The class to use, for Node before version 22. */
  WebSocket?: unknown;
}

export interface MatchOptions extends Options {
  match: MatchId;
  matches?: undefined;
  /** Resume after this id instead of starting with a snapshot. */
  lastEventId?: string | null;
}

export interface MatchesOptions extends Options {
  matches: readonly MatchId[];
  match?: undefined;
  /**
   * Whether all tabs of the browser share one connection, where it can. A text shares with the tabs that have the same
   * text: use one for each user, since what comes is what the leading tab's token permits.
   */
  shareTabs?: boolean | string;
}

interface Connection {
  readonly state: State;
  /** Registers a handler for the messages of one type, or of every type with `"*"`. Returns what removes the handler. */
  on<Type extends keyof Messages>(type: Type, handler: (message: Messages[Type]) => void): () => void;
  on(type: "*", handler: (message: Message) => void): () => void;
  on(type: string, handler: (message: Update<any>) => void): () => void;
  /** Registers a handler for the state. It is called at once and at every change. Returns what removes the handler. */
  onState(handler: (state: State) => void): () => void;
  /** Closes the connection permanently. */
  close(): void;
}

export interface MatchConnection extends Connection {
  /** The id from which another connection can resume; null if the last message has none. */
  readonly lastEventId: string | null;
}

export interface MatchesConnection extends Connection {
  readonly matches: MatchId[];
  /** Adds a match: its initial-load with a snapshot follows, or `refused`. */
  add(match: MatchId): void;
  /** Removes a match: none of its messages comes any longer. */
  remove(match: MatchId): void;
  /** Has the server go on with a new token of the function `token`: `renewed` follows, or `refused`. */
  renew(): Promise<void>;
}

/** @throws {TypeError} a match is missing, or `base` is not a URL */
export function connect(options: MatchOptions): MatchConnection;
export function connect(options: MatchesOptions): MatchesConnection;
