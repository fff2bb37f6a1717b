// Formats figures as text; an unknown figure is a dash. Pure: no DOM, no clock.

export const UNKNOWN = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

const known = (format) => (value) => (Number.isFinite(value) ? format(value) : UNKNOWN);

export const count = known((value) => whole.format(value));

/** Events per second. */
export const rate = known((value) => (value < 10 ? tenths : whole).format(value));

export const milliseconds = known((value) => {
  if (value >= 1000) return `${tenths.format(value / 1000)} s`;
  return `${(value < 1 ? hundredths : value < 10 ? tenths : whole).format(value)} ms`;
});

export const share = known((value) => (value > 0 && value < 0.001 ? "< 0.1 %" : `${tenths.format(value * 100)} %`));

export const bytes = known((value) => {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${(value < 10 ? tenths : whole).format(value)} ${units[unit]}`;
});

/** Formats seconds in the largest suitable unit. */
export const duration = known((value) => {
  const seconds = Math.max(0, value);
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3_600)} h`;
});

/** Formats Unix seconds as a time of day in the local time zone. */
export const clock = known((value) => new Date(value * 1000).toLocaleTimeString("en-GB"));

export const minute = known((value) => clock(value).slice(0, 5));

/** Formats Unix seconds as a time of day, with the date unless it is the date of `now`. */
export function moment(value, now) {
  if (!Number.isFinite(value)) return UNKNOWN;
  const [day, today] = [value, now].map((each) => new Date(each * 1000).toDateString());
  return day === today ? clock(value) : `${new Date(value * 1000).toLocaleDateString("en-CA")} ${clock(value)}`;
}

export const stateName = (state) => (state === "down" ? "unreachable" : state);

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}
