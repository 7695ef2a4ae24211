import { expect, test } from "vitest";
import { borderPoint, type GraphNode, HEIGHT, layoutGraph, WIDTH } from "../src/lib/graph_layout";
import { isMeasured, taskTitles, timCells } from "../src/lib/tim_cells";
import { tasks, tim } from "./fixtures";

const edges = timCells(tim).filter(isMeasured);
const boxes = () => [...layoutGraph(edges, taskTitles(tasks)).values()];

test("the same edges give the same layout", () => {
  expect(boxes()).toEqual(boxes());
});

test("each task with an edge has one box inside the picture", () => {
  expect(boxes().map((box) => box.name)).toEqual(tim.tasks.toSorted());
  for (const { x, y, width, height } of boxes()) {
    expect(x - width / 2).toBeGreaterThanOrEqual(0);
    expect(x + width / 2).toBeLessThanOrEqual(WIDTH);
    expect(y - height / 2).toBeGreaterThanOrEqual(0);
    expect(y + height / 2).toBeLessThanOrEqual(HEIGHT);
  }
});

test("no two boxes overlap", () => {
  const all = boxes();
  for (const [i, a] of all.entries()) {
    for (const b of all.slice(i + 1)) {
      const apart =
        Math.abs(a.x - b.x) >= (a.width + b.width) / 2 - 0.01 ||
        Math.abs(a.y - b.y) >= (a.height + b.height) / 2 - 0.01;
      expect(apart, `${a.name} and ${b.name}`).toBe(true);
    }
  }
});

test("a long title is wrapped onto two lines", () => {
  const title = () => "Acute respiratory distress syndrome";
  const [box] = layoutGraph(edges, title).values();
  expect(box?.lines).toEqual(["Acute respiratory", "distress syndrome"]);
});

test("an arrow starts at the border of its box", () => {
  const box: GraphNode = { name: "a", lines: ["a"], x: 100, y: 100, width: 40, height: 20 };
  expect(borderPoint(box, { x: 300, y: 100 })).toEqual({ x: 121, y: 100 });
  expect(borderPoint(box, { x: 100, y: 0 })).toEqual({ x: 100, y: 89 });
  expect(borderPoint(box, { x: 105, y: 100 })).toEqual({ x: 105, y: 100 });
});
