// The ids of matches: a number and its text are one id, as docs/protocol.md says.

const NUMBER = /^(?!-0$)-?(?:0|[1-9]\d*)(?:\.\d*[1-9])?$/;

/** The text of an id, as it is in a URL. */
export function matchText(match) {
  return Number.isInteger(match) ? String(BigInt(match)) : String(match);
}

/** What an id is compared by: equal for the ids that JSON.parse makes of equal ids. */
export function matchKey(match) {
  return typeof match === "string" && NUMBER.test(match) ? Number(match) : match;
}

/** An id as it is in messages: a number if no digit of it is lost, else its text. */
export function matchValue(match) {
  const text = matchText(match);
  return NUMBER.test(text) && matchText(Number(text)) === text ? Number(text) : text;
}

/** @throws {TypeError} it is no id */
export function checkMatch(match) {
  if (match === undefined || match === null || match === "") throw new TypeError("connect() needs a match");
}
