import { expect, test } from "vitest";
import { parseRoute } from "../src/lib/route";

test.each([
  ["", { view: "patient", task: undefined }],
  ["#model", { view: "model", task: undefined }],
  ["#tim/sepsis", { view: "tim", task: "sepsis" }],
  ["#unknown", { view: "patient", task: undefined }],
])("the hash %j selects a view and a task", (hash, route) => {
  expect(parseRoute(hash)).toEqual(route);
});
