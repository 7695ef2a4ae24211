// How numbers are written. A chance is never rounded to none, nor to certainty.

const MINUS = "\u2212";
const THIN = "\u202f";

function fixed(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

/** A probability in percent: `12 %`, `0.4 %`, `< 0.1 %`, `> 99.9 %`. */
export function percent(probability: number): string {
  const value = 100 * probability;
  if (value < 0.1) return `<${THIN}0.1${THIN}%`;
  if (value > 99.9) return `>${THIN}99.9${THIN}%`;
  return `${fixed(value, value < 10 || value > 99 ? 1 : 0)}${THIN}%`;
}

/** A share that may be none: `0 %`. */
export function share(value: number): string {
  return value === 0 ? `0${THIN}%` : percent(value);
}

/** A difference of probabilities in percentage points, with its sign. */
export function points(difference: number): string {
  const value = 100 * difference;
  const text = fixed(Math.abs(value), Math.abs(value) < 10 ? 1 : 0);
  if (value === 0) return "0";
  if (Number(text) === 0) return `${value > 0 ? "+" : MINUS}${THIN}<${THIN}0.1`;
  return (value > 0 ? "+" : MINUS) + text;
}

export function signed(value: number, digits: number): string {
  const text = fixed(value, digits);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/** A measured value: three figures, and whole numbers as they are. */
export function measured(value: number): string {
  const digits = Number.isInteger(value) || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return fixed(value, digits);
}

export const decimal = fixed;

/** UCUM as it is spoken at the bedside; what is not listed is shown as it is. */
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

export function unit(code: string | null | undefined): string {
  return code ? (UNITS[code] ?? code.replace(/^u(?=[A-Za-z])/, "µ").replace("/uL", "/µL")) : "";
}

export function quantity(value: number, code: string | null | undefined): string {
  return `${measured(value)} ${unit(code)}`.trim();
}

/** How long before `asOf` a moment lies. */
export function before(asOf: string, time: string): string {
  const minutes = Math.round((Date.parse(asOf) - Date.parse(time)) / 60_000);
  if (!Number.isFinite(minutes)) return time;
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min before`;
  const hours = minutes / 60;
  return hours < 48 ? `${fixed(hours, hours < 10 ? 1 : 0)} h before` : `${fixed(hours / 24, 0)} days before`;
}
