// Number, unit and time formats. A probability is never rounded to 0 % or 100 %.

const MINUS = "\u2212";
const NARROW_SPACE = "\u202f";

/** A fixed number of decimals, with a typographic minus sign. */
export function decimal(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

/** A count with thousands separators: `1,751`. */
export function count(value: number): string {
  return value.toLocaleString("en");
}

/** A probability in percent: `12 %`, `0.4 %`, `< 0.1 %`, `> 99.9 %`. */
export function percent(probability: number): string {
  const value = 100 * probability;
  if (value < 0.1) return `<${NARROW_SPACE}0.1${NARROW_SPACE}%`;
  if (value > 99.9) return `>${NARROW_SPACE}99.9${NARROW_SPACE}%`;
  return `${decimal(value, value < 10 || value > 99 ? 1 : 0)}${NARROW_SPACE}%`;
}

/** A proportion in percent, which may be exactly `0 %`. */
export function share(value: number): string {
  return value === 0 ? `0${NARROW_SPACE}%` : percent(value);
}

/** A difference of probabilities in percentage points, with its sign. */
export function points(difference: number): string {
  const value = 100 * difference;
  const text = decimal(Math.abs(value), Math.abs(value) < 10 ? 1 : 0);
  if (value === 0) return "0";
  if (Number(text) === 0) return `${value > 0 ? "+" : MINUS}${NARROW_SPACE}<${NARROW_SPACE}0.1`;
  return (value > 0 ? "+" : MINUS) + text;
}

/** A fixed number of decimals, with a plus or minus sign unless it rounds to zero. */
export function signed(value: number, digits: number): string {
  const text = decimal(value, digits);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/** A measured value with three significant figures; a whole number has no decimals. */
export function measurement(value: number): string {
  const digits = Number.isInteger(value) || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return decimal(value, digits);
}

/** UCUM codes whose clinical notation differs. Other codes are shown unchanged. */
const UNITS: Record<string, string> = {
  Cel: "°C",
  "[degF]": "°F",
  "mm[Hg]": "mmHg",
  "/min": "/min",
  "10*3/uL": "10³/µL",
  "10*9/L": "10⁹/L",
  "{score}": "",
  "{INR}": "",
  "[pH]": "",
  d: "days",
};

/** The clinical notation of a UCUM code; empty if there is no unit. */
export function unitLabel(code: string | null | undefined): string {
  return code ? (UNITS[code] ?? code.replace(/^u(?=[A-Za-z])/, "µ").replace("/uL", "/µL")) : "";
}

/** A measured value with its unit. */
export function quantity(value: number, code: string | null | undefined): string {
  return `${measurement(value)} ${unitLabel(code)}`.trim();
}

/** The time from `time` to `asOf` (both ISO 8601): `2.5 h before`. */
export function timeBefore(asOf: string, time: string): string {
  const minutes = Math.round((Date.parse(asOf) - Date.parse(time)) / 60_000);
  if (!Number.isFinite(minutes)) return time;
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min before`;
  const hours = minutes / 60;
  return hours < 48 ? `${decimal(hours, hours < 10 ? 1 : 0)} h before` : `${decimal(hours / 24, 0)} days before`;
}

/** An identifier with spaces for underscores. */
export function spaced(identifier: string): string {
  return identifier.replaceAll("_", " ");
}
