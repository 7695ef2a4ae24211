import { expect, test } from "vitest";
import type { Answer, Prediction } from "../src/lib/api";
import {
  classLabel,
  groupByDepartment,
  hasSingleNumber,
  largestChanges,
  rankedClasses,
  sortByDistance,
  visibleChange,
} from "../src/lib/predictions";
import { probability } from "./fixtures";

const answer = (...predictions: Prediction[]) => ({ predictions }) as Answer;
const stay = { task: "length_of_stay", value: 4.2 } as Prediction;
const discharge = {
  task: "discharge",
  probabilities: { home: 0.2, skilled_nursing: 0.7, died: 0.1 },
} as unknown as Prediction;

test("a probability and a value are single numbers, probabilities of classes are not", () => {
  expect([probability("sepsis", 0.1, 0.1), stay, discharge].map(hasSingleNumber)).toEqual([true, true, false]);
});

test("classes are ranked by probability", () => {
  expect(rankedClasses(discharge).map(([name]) => name)).toEqual(["skilled_nursing", "home", "died"]);
});

test("a class label has no underscores, and a number is a group", () => {
  expect([classLabel("skilled_nursing"), classLabel("3")]).toEqual(["skilled nursing", "group 3"]);
});

test("predictions are grouped by department in the order of the answer", () => {
  const groups = groupByDepartment([
    probability("a", 0.1, 0.1, "B"),
    probability("b", 0.1, 0.1, "A"),
    probability("c", 0.1, 0.1, "B"),
  ]);
  expect(groups.map(({ title, predictions }) => [title, predictions.map(({ task }) => task)])).toEqual([
    ["B", ["a", "c"]],
    ["A", ["b"]],
  ]);
});

test("the probability furthest from its prevalence comes first, predictions without a prevalence last", () => {
  const [group] = sortByDistance([stay, probability("near", 0.2, 0.1), probability("far", 0.1, 0.6)]);
  expect(group?.predictions.map(({ task }) => task)).toEqual(["far", "near", "length_of_stay"]);
});

test("a change below a tenth of a percentage point is not shown", () => {
  expect(visibleChange(0.5, 0.5009)).toBeUndefined();
  expect(visibleChange(0.5, 0.502)).toBe(0.502);
  expect(visibleChange(0.5, null)).toBeUndefined();
});

test("the largest changes come first, and at most the limit is returned", () => {
  const before = answer(probability("a", 0.1, 0), probability("b", 0.1, 0), probability("c", 0.1, 0), stay);
  const after = answer(probability("c", 0.1004, 0), probability("b", 0.4, 0), probability("a", 0.05, 0), stay);
  expect(largestChanges(before, after, 6).map(({ prediction }) => prediction.task)).toEqual(["b", "a"]);
  expect(largestChanges(before, after, 1)).toMatchObject([{ before: 0.1, after: 0.4 }]);
});
