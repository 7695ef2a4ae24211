import { expect, test } from "vitest";
import type { Answer, Prediction, Receipt } from "../src/lib/api";
import {
  classLabel,
  countPredictions,
  groupByDepartment,
  hasSingleNumber,
  largestChanges,
  rankedClasses,
  sortByDistance,
  splitByInfluence,
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

test("inputs without influence are not listed as used", () => {
  const receipt = {
    used: [{ variable: "lactate" }, { variable: "lipase" }],
    treatments: ["rifaximin", "insulin"],
    not_learned: { variables: ["lipase"], treatments: ["rifaximin"] },
  } as unknown as Receipt;
  expect(splitByInfluence(receipt)).toEqual({
    used: [{ variable: "lactate" }],
    treatments: ["insulin"],
    notLearned: ["lipase", "rifaximin"],
  });
});

test("all inputs are listed as used if nothing is known about their influence", () => {
  const receipt = { used: [{ variable: "lactate" }], treatments: ["insulin"] } as unknown as Receipt;
  expect(splitByInfluence(receipt)).toEqual({ ...receipt, notLearned: [] });
});

test("tasks that abstain are not counted as predictions", () => {
  const abstaining = { task: "sepsis", abstained: { reason: "a child" } } as Prediction;
  expect(countPredictions(answer(stay, discharge))).toBe("2 predictions");
  expect(countPredictions(answer(stay, abstaining))).toBe("1 predictions, 1 task abstains");
  expect(countPredictions(answer(abstaining, abstaining))).toBe("0 predictions, 2 tasks abstain");
});
