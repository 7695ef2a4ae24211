// Cells of the task interaction matrix (TIM): how much learning one task changed another.
import type { Task, Tim } from "./api";
import { type Estimate, excludes } from "./estimates";
import { count, signed } from "./numbers";

export interface TimCell {
  /** The task whose performance changes (the row). */
  source: string;
  /** The task that was learned beside it (the column). */
  task: string;
  metric: string;
  /** The change of `metric`. Null if it was not measured, as for a task with itself. */
  effect: Estimate | null;
  /** True if the effect differs from 0 at a false discovery rate of 5 % over all cells. */
  certain: boolean;
  /** The mean attention from the source to the task, 0 to 1. */
  attention: number | null;
}

export type MeasuredCell = TimCell & { effect: Estimate };

/** The display name of a task; the name itself if the task is unknown. */
export type TaskTitle = (task: string) => string;

export function taskTitles(tasks: Task[]): TaskTitle {
  const display = new Map(tasks.map((task) => [task.name, task.display]));
  return (name) => display.get(name) ?? name;
}

export function timCells(tim: Tim): TimCell[] {
  return tim.sources.flatMap((source, r) =>
    tim.tasks.map((task, c) => {
      const value = tim.matrix[r]?.[c];
      return {
        source,
        task,
        metric: tim.metric[r] ?? "",
        effect: value == null ? null : [value, tim.lower[r]?.[c], tim.upper[r]?.[c]],
        certain: tim.certain[r]?.[c] ?? false,
        attention: tim.mean_attention[r]?.[c] ?? null,
      };
    }),
  );
}

export const isMeasured = (cell: TimCell): cell is MeasuredCell => cell.effect !== null;

/** How far an effect differs from 0. */
export type CertaintyLevel = "certain" | "excludes-zero" | "includes-zero";

/** A single interval can exclude 0 by chance; `certain` accounts for the number of cells. */
export function certaintyLevel(cell: MeasuredCell): CertaintyLevel {
  return cell.certain ? "certain" : excludes(cell.effect, 0) ? "excludes-zero" : "includes-zero";
}

const CERTAINTY_TEXTS: Record<CertaintyLevel, string> = {
  certain: "certain",
  "excludes-zero": "the interval excludes 0, but the effect is not certain among so many cells",
  "includes-zero": "the interval includes 0",
};

export const formatEffect = (value: number) => signed(value, 3);

/** The effect of a cell in words. */
export function describeCell(cell: TimCell): string {
  if (!isMeasured(cell)) return "not measured";
  const [value, lower, upper] = cell.effect;
  const interval = lower == null || upper == null ? "" : ` [${formatEffect(lower)}, ${formatEffect(upper)}]`;
  return `${formatEffect(value)} ${cell.metric}${interval}; ${CERTAINTY_TEXTS[certaintyLevel(cell)]}`;
}

/** A sentence that names both tasks of a cell and its effect. */
export function describePair(cell: TimCell, title: TaskTitle): string {
  if (cell.source === cell.task) return `${title(cell.source)}: a task has no effect on itself.`;
  const learned = `Learning ${title(cell.task)}`;
  if (!isMeasured(cell)) return `${learned}: its effect on ${title(cell.source)} was not measured.`;
  return `${learned} changes ${title(cell.source)} by ${describeCell(cell)}.`;
}

/** How many of the measured cells are certain, as a headline. */
export function certaintyHeadline(certain: number, pairs: number, patients: number): string {
  if (certain > 0) return `${count(certain)} of ${count(pairs)} cells ${certain === 1 ? "is" : "are"} certain`;
  return `No cell is certain: ${count(patients)} patients are too few to show which task helps which`;
}
