// Orders of the tasks in the task interaction matrix.
import { agnes } from "ml-hclust";
import type { Task, Tim } from "./api";

export interface TaskGroup {
  /** The department; absent if the tasks are not grouped. */
  title?: string;
  tasks: string[];
}

export function orderByDepartment(tim: Tim, tasks: Task[]): TaskGroup[] {
  const departments = new Map(tasks.map((task) => [task.name, task.department]));
  const groups = Map.groupBy(tim.tasks, (name) => departments.get(name) ?? "Other");
  return [...groups].map(([title, names]) => ({ title, tasks: names }));
}

/** The leaf order of a hierarchical clustering (Ward): tasks with similar rows and columns are adjacent. */
export function orderBySimilarity(tim: Tim): TaskGroup[] {
  // Each row is scaled to length 1, because cells of a rare disease are larger by chance alone.
  const scaled = tim.matrix.map((row) => {
    const length = Math.hypot(...row.map((value) => value ?? 0)) || 1;
    return row.map((value) => (value ?? 0) / length);
  });
  const profiles = scaled.map((row, i) => [...row, ...scaled.map((other) => other[i] ?? 0)]);
  const distances = profiles.map((a) => profiles.map((b) => Math.hypot(...a.map((value, k) => value - (b[k] ?? 0)))));
  const leaves = agnes(distances, { method: "ward", isDistanceMatrix: true }).indices();
  return [{ tasks: leaves.flatMap((i) => tim.tasks[i] ?? []) }];
}
