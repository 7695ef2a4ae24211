// Estimates with their 95 % confidence intervals.

/** A value and its 95 % interval. The bounds are null or undefined if no interval was computed. */
export type Estimate = readonly [value: number, lower: number | null | undefined, upper: number | null | undefined];

export type NumberFormat = (value: number) => string;

/** `value [lower, upper]`, or `value` alone without an interval. */
export function formatEstimate(format: NumberFormat, [value, lower, upper]: Estimate): string {
  return lower == null || upper == null ? format(value) : `${format(value)} [${format(lower)}, ${format(upper)}]`;
}

/** True if the interval excludes `reference`; false without an interval. */
export function excludes([, lower, upper]: Estimate, reference: number): boolean {
  return lower != null && upper != null && (lower > reference || upper < reference);
}
