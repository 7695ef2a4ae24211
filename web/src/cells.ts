// A cell of TIM: what learning one task brought another, and how it is said.
import { apart, type Ranged } from "./charts";
import type { Task, Tim } from "./api";
import { signed } from "./numbers";

export interface Cell {
  /** The task that is helped, or harmed. */
  source: string;
  /** The task that was learned beside it. */
  task: string;
  metric: string;
  /** null: not measured, as of a task with itself. */
  effect: Ranged | null;
  certain: boolean;
  /** How much of its attention the source pays to the task. */
  attention: number | null;
}

export const effect = (value: number) => signed(value, 3);

export function cells(tim: Tim): Cell[] {
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

export type Measured = Cell & { effect: Ranged };
export const measured = (cell: Cell): cell is Measured => cell.effect !== null;

/** `certain` is judged among all cells at once; of a single interval some leave out zero by chance. */
export function surety(cell: Measured): "certain" | "apart" | "unclear" {
  return cell.certain ? "certain" : apart(cell.effect, 0) ? "apart" : "unclear";
}

const SURETY = {
  certain: "certain",
  apart: "interval leaves out zero, but not certain among so many cells",
  unclear: "interval holds zero",
};

export function said(cell: Cell): string {
  if (!measured(cell)) return "not measured";
  const [value, lower, upper] = cell.effect;
  const interval = lower == null || upper == null ? "" : ` [${effect(lower)}, ${effect(upper)}]`;
  return `${effect(value)} ${cell.metric}${interval}; ${SURETY[surety(cell)]}`;
}

export type Titles = (task: string) => string;

export function titles(tasks: Task[]): Titles {
  const display = new Map(tasks.map((task) => [task.name, task.display]));
  return (name) => display.get(name) ?? name;
}
