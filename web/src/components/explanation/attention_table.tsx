import type { Explanation, Known } from "../../lib/api";
import { share } from "../../lib/numbers";
import { taskTitles } from "../../lib/tim_cells";
import { BarRow } from "../bar_row";

const SHOWN_TASKS = 5;

interface AttentionTableProps {
  task: string;
  explanation: Explanation;
  known: Known;
}

/** The attention of a task to itself, and the largest attention weights to other tasks. */
export function AttentionTable({ task, explanation, known }: AttentionTableProps) {
  const { attention } = explanation;
  // The page requests the whole matrix; the list form holds only the largest weights.
  if (Array.isArray(attention)) return null;
  const taskIndex = attention.tasks.indexOf(task);
  const weights = attention.weights[taskIndex];
  if (!weights) return null;
  const title = taskTitles(known.tasks);
  const others = weights
    .map((weight, i) => ({ name: attention.tasks[i] ?? "", weight }))
    .sort((a, b) => b.weight - a.weight)
    .filter(({ name }) => name !== task)
    .slice(0, SHOWN_TASKS);
  const rows = [{ name: task, weight: weights[taskIndex] ?? 0 }, ...others];
  const largest = Math.max(...rows.map(({ weight }) => weight));
  return (
    <>
      <h3>Attention to other tasks</h3>
      <table class="bars">
        <tbody>
          {rows.map(({ name, weight }) => (
            <BarRow
              key={name}
              data-attended={name}
              label={name === task ? "The task itself" : title(name)}
              number={share(weight)}
              fill="neutral-fill"
              width={(100 * weight) / largest}
            />
          ))}
        </tbody>
      </table>
      <p class="small muted">
        Attention weights for this patient: how much the network read from each task. They do not show that diseases are
        related or cause each other.{" "}
        {known.tim && <a href={`#tim/${task}`}>How learning the other tasks changes this task</a>}
      </p>
    </>
  );
}
