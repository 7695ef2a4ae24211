import { describe, expect, test } from "vitest";
import {
  count,
  decimal,
  measurement,
  percent,
  points,
  quantity,
  share,
  signed,
  timeBefore,
  unitLabel,
} from "../src/lib/numbers";

/** Expected texts are written with plain spaces and hyphens. */
const plain = (text: string) => text.replaceAll("\u202f", " ").replaceAll("\u2212", "-");

describe("percent", () => {
  test.each([
    [0.123, "12 %"],
    [0.0421, "4.2 %"],
    [0.993, "99.3 %"],
    [0, "< 0.1 %"],
    [0.0004, "< 0.1 %"],
    [0.9996, "> 99.9 %"],
    [1, "> 99.9 %"],
  ])("%f is written as %s", (probability, text) => {
    expect(plain(percent(probability))).toBe(text);
  });

  test("a share can be exactly zero", () => {
    expect(plain(share(0))).toBe("0 %");
    expect(plain(share(0.5))).toBe("50 %");
  });
});

describe("differences", () => {
  test.each([
    [0.123, "+12"],
    [-0.0421, "-4.2"],
    [0, "0"],
    [0.0001, "+ < 0.1"],
    [-0.0001, "- < 0.1"],
  ])("%f is %s percentage points", (difference, text) => {
    expect(plain(points(difference))).toBe(text);
  });

  test("a number that rounds to zero has no sign", () => {
    expect(signed(0.0001, 2)).toBe("0.00");
    expect(signed(-0.0001, 2)).toBe("0.00");
    expect(plain(signed(-0.25, 2))).toBe("-0.25");
    expect(signed(0.25, 2)).toBe("+0.25");
  });
});

test("a measurement has three significant figures, a whole number none after the point", () => {
  expect([118, 7.345, 37.25, 163.4].map(measurement)).toEqual(["118", "7.34", "37.3", "163"]);
});

test("a count has thousands separators", () => {
  expect(count(1751)).toBe("1,751");
});

test("a negative number has a minus sign, not a hyphen", () => {
  expect(decimal(-1.5, 1)).toBe("\u22121.5");
});

test.each([
  ["mm[Hg]", "mmHg"],
  ["umol/L", "µmol/L"],
  ["10*3/uL", "10³/µL"],
  ["{score}", ""],
  ["mmol/L", "mmol/L"],
  [null, ""],
])("the unit %s is shown as %s", (code, label) => {
  expect(unitLabel(code)).toBe(label);
});

test("a quantity without a unit is a number alone", () => {
  expect(quantity(15, "{score}")).toBe("15");
  expect(quantity(37.25, "Cel")).toBe("37.3 °C");
});

test.each([
  ["2026-11-23T10:00:00Z", "just now"],
  ["2026-11-23T09:20:00Z", "40 min before"],
  ["2026-11-23T07:30:00Z", "2.5 h before"],
  ["2026-11-22T10:00:00Z", "24 h before"],
  ["2026-11-20T10:00:00Z", "3 days before"],
  ["unknown", "unknown"],
])("%s is %s the time of the prediction", (time, text) => {
  expect(timeBefore("2026-11-23T10:00:00Z", time)).toBe(text);
});
