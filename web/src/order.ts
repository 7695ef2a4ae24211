// In which order the tasks of TIM stand.
import { agnes } from "ml-hclust";
import type { Task, Tim } from "./api";

export interface Group {
  /** A department; none where tasks are not grouped. */
  title?: string;
  tasks: string[];
}

export function byDepartment(tim: Tim, tasks: Task[]): Group[] {
  const departments = new Map(tasks.map((task) => [task.name, task.department]));
  const groups = Map.groupBy(tim.tasks, (name) => departments.get(name) ?? "Other");
  return [...groups].map(([title, names]) => ({ title, tasks: names }));
}

/** Tasks that are helped by the same tasks, and help the same, stand together. */
export function bySimilarity(tim: Tim): Group[] {
  // Rows are put on one scale first: cells of a rare disease are larger by chance alone.
  const scaled = tim.matrix.map((row) => {
    const size = Math.hypot(...row.map((value) => value ?? 0)) || 1;
    return row.map((value) => (value ?? 0) / size);
  });
  const profiles = scaled.map((row, i) => [...row, ...scaled.map((other) => other[i] ?? 0)]);
  const distance = profiles.map((a) => profiles.map((b) => Math.hypot(...a.map((value, k) => value - (b[k] ?? 0)))));
  const leaves = agnes(distance, { method: "ward", isDistanceMatrix: true }).indices();
  return [{ tasks: leaves.flatMap((i) => tim.tasks[i] ?? []) }];
}
