import { describe, expect, test } from "vitest";
import type { Payload } from "../src/lib/api";
import { type LatestValue, latestValues, sliderRange, sliderStep, withValue } from "../src/lib/what_if_payload";
import { variables } from "./fixtures";

const payload = {
  as_of: "2026-11-23T10:00:00Z",
  series: [
    {
      variable: "heart_rate",
      unit: "/min",
      times: ["2026-11-23T09:00:00Z", "2026-11-23T08:00:00Z"],
      values: [118, 96],
    },
    { variable: "loinc:2160-0", unit: "umol/L", times: ["2026-11-23T06:00:00Z"], values: [180] },
    { variable: "unknown", unit: "m", times: ["2026-11-23T06:00:00Z"], values: [1] },
  ],
} as Payload;

function latest(variable: string): LatestValue {
  const found = latestValues(payload, variables).find((value) => value.variable.name === variable);
  if (!found) throw new Error(`no value of ${variable}`);
  return found;
}

describe("latest values", () => {
  test("the latest value is the one with the latest time, not the last in the list", () => {
    expect(latest("heart_rate")).toMatchObject({ seriesIndex: 0, valueIndex: 0, value: 118 });
  });

  test("a variable is known by its name or its LOINC code; unknown variables are left out", () => {
    const names = latestValues(payload, variables).map((value) => value.variable.name);
    expect(names).toEqual(["heart_rate", "creatinine"]);
  });

  test("a series whose latest value is not a number is left out", () => {
    const bound = { ...payload, series: [{ ...payload.series?.[0], values: ["<5", 96] }] } as Payload;
    expect(latestValues(bound, variables)).toEqual([]);
  });
});

test("only the latest value changes, and the original payload stays as it is", () => {
  const before = structuredClone(payload);
  const changed = withValue(payload, latest("heart_rate"), 150);
  expect(payload).toEqual(before);
  expect(changed.series?.[0]?.values).toEqual([150, 96]);
  expect(changed.series?.slice(1)).toEqual(before.series?.slice(1));
});

describe("slider", () => {
  test("the range is the plausible range in the canonical unit", () => {
    expect(sliderRange(latest("heart_rate"))).toEqual([20, 300]);
  });

  test("in another unit the range is half to twice the value", () => {
    expect(sliderRange(latest("creatinine"))).toEqual([90, 360]);
  });

  test("the step divides the range into 100 to 1,000 steps", () => {
    expect(sliderStep([20, 300])).toBe(1);
    expect(sliderStep([0.1, 30])).toBeCloseTo(0.1);
  });
});
