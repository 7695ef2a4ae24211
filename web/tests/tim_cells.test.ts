import { describe, expect, test } from "vitest";
import {
  certaintyHeadline,
  certaintyLevel,
  describeCell,
  describePair,
  isMeasured,
  type TimCell,
  taskTitles,
  timCells,
} from "../src/lib/tim_cells";
import { tasks, tim } from "./fixtures";

const title = taskTitles(tasks);

function cellOf(source: string, task: string): TimCell {
  const cell = timCells(tim).find((candidate) => candidate.source === source && candidate.task === task);
  if (!cell) throw new Error(`no cell ${source}, ${task}`);
  return cell;
}

test("there is a cell for each pair of tasks, with its interval and its attention", () => {
  expect(timCells(tim)).toHaveLength(16);
  expect(cellOf("sepsis", "pneumonia")).toEqual({
    source: "sepsis",
    task: "pneumonia",
    metric: "AUROC",
    effect: [0.05, 0.01, 0.09],
    certain: true,
    attention: 0.3,
  });
});

test("a task with itself is not measured", () => {
  const cell = cellOf("sepsis", "sepsis");
  expect(isMeasured(cell)).toBe(false);
  expect(describeCell(cell)).toBe("not measured");
  expect(describePair(cell, title)).toBe("Sepsis: a task has no effect on itself.");
});

describe("certainty", () => {
  test.each([
    ["sepsis", "pneumonia", "certain"],
    ["pneumonia", "sepsis", "excludes-zero"],
    ["sepsis", "heart_failure", "includes-zero"],
  ])("%s, %s: %s", (source, task, level) => {
    const cell = cellOf(source, task);
    expect(isMeasured(cell) && certaintyLevel(cell)).toBe(level);
  });

  test("the headline gives the number of certain cells, or says that there are none", () => {
    expect(certaintyHeadline(1, 1892, 1315)).toBe("1 of 1,892 cells is certain");
    expect(certaintyHeadline(2, 1892, 1315)).toBe("2 of 1,892 cells are certain");
    expect(certaintyHeadline(0, 1892, 1315)).toContain("1,315 patients are too few");
  });
});

test("a cell is described with its effect, metric, interval and certainty", () => {
  expect(describePair(cellOf("sepsis", "pneumonia"), title)).toBe(
    "Learning Pneumonia changes Sepsis by +0.050 AUROC [+0.010, +0.090]; certain.",
  );
});

test("a task without an entry is shown by its name", () => {
  expect(title("unknown_task")).toBe("unknown_task");
});
