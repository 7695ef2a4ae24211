import { expect, test } from "vitest";
import { orderByDepartment, orderBySimilarity } from "../src/lib/task_order";
import { tasks, tim } from "./fixtures";

test("departments keep the order of the matrix", () => {
  expect(orderByDepartment(tim, tasks)).toEqual([
    { title: "Infectious disease", tasks: ["sepsis", "pneumonia"] },
    { title: "Cardiology", tasks: ["heart_failure", "atrial_fibrillation"] },
  ]);
});

test("a task without a department is in the group Other", () => {
  expect(orderByDepartment(tim, []).map((group) => group.title)).toEqual(["Other"]);
});

test("tasks with similar effects are adjacent, and no task is lost", () => {
  const [group] = orderBySimilarity(tim);
  const order = group?.tasks ?? [];
  expect(order.toSorted()).toEqual(tim.tasks.toSorted());
  expect(Math.abs(order.indexOf("sepsis") - order.indexOf("pneumonia"))).toBe(1);
  expect(Math.abs(order.indexOf("heart_failure") - order.indexOf("atrial_fibrillation"))).toBe(1);
});
