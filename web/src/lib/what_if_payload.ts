// Payloads for "what if": a copy of a payload in which the latest value of one series differs.
import type { Payload, Variable } from "./api";

/** The latest value of a series. */
export interface LatestValue {
  seriesIndex: number;
  valueIndex: number;
  value: number;
  /** The unit that the payload gives, a UCUM code. */
  unit: string | null | undefined;
  variable: Variable;
}

/** The latest value of each series whose variable the model knows and whose latest value is a number. */
export function latestValues(payload: Payload, variables: Variable[]): LatestValue[] {
  const byName = new Map<string, Variable>();
  for (const variable of variables) {
    for (const name of [variable.name, ...variable.loinc.map((code) => `loinc:${code}`)]) byName.set(name, variable);
  }
  return (payload.series ?? []).flatMap((series, seriesIndex) => {
    const variable = byName.get(series.variable);
    const times = series.times.map((time) => Date.parse(time));
    const valueIndex = times.indexOf(Math.max(...times));
    const value = series.values[valueIndex];
    if (!variable || typeof value !== "number") return [];
    return [{ seriesIndex, valueIndex, value, unit: series.unit, variable }];
  });
}

/** A copy of the payload with another number in the position of `latest`. */
export function withValue(payload: Payload, latest: LatestValue, value: number): Payload {
  const changed = structuredClone(payload);
  const values = changed.series?.[latest.seriesIndex]?.values;
  if (values) values[latest.valueIndex] = value;
  return changed;
}

/** The plausible range in the canonical unit. In another unit, from half to twice the latest value. */
export function sliderRange({ value, unit, variable }: LatestValue): [low: number, high: number] {
  if (!unit || unit === variable.units[0]) return variable.plausible as [number, number];
  return value > 0 ? [value / 2, value * 2] : [value * 2, value / 2 + 1];
}

/** The power of ten that divides the range into 100 to 1,000 steps. */
export function sliderStep([low, high]: [low: number, high: number]): number {
  return 10 ** Math.floor(Math.log10((high - low) / 100));
}
