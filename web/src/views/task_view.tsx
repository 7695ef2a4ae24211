import { Panel } from "../components/panel";
import { EffectPanel } from "../components/tim/effect_panel";
import type { Known, Tim } from "../lib/api";
import { type Estimate, excludes, formatEstimate } from "../lib/estimates";
import { share } from "../lib/numbers";
import { formatEffect, isMeasured, type TaskTitle, taskTitles, timCells } from "../lib/tim_cells";

/** One task of the matrix: the effects on it (its row) and its effects on other tasks (its column). */
export function TaskView({ known, tim, name }: { known: Known; tim: Tim; name: string }) {
  const title = taskTitles(known.tasks);
  const row = tim.sources.indexOf(name);
  if (row < 0) return <UnknownTask />;
  const task = known.tasks.find((entry) => entry.name === name);
  const cells = timCells(tim);
  const ownAttention = cells.find((cell) => cell.source === name && cell.task === name)?.attention;
  return (
    <div class="tim">
      <TaskNavigation tim={tim} row={row} title={title} />
      <h1>{title(name)}</h1>
      <p class="muted">
        {task?.department}. {task?.means}
      </p>
      <Panel title="Effect of learning all tasks together">
        <MultitaskGain tim={tim} row={row} />
        {ownAttention != null && (
          <p>
            In the served model, this task pays {share(ownAttention)} of its attention to itself. Attention shows what
            the network reads, not which task helped it to learn.
          </p>
        )}
      </Panel>
      <div class="pair">
        <EffectPanel
          title="Tasks that help it"
          cells={cells.filter((cell) => cell.source === name).filter(isMeasured)}
          otherTask={(cell) => cell.task}
          taskTitle={title}
          taskHeading="learned task"
          attentionHeading="attention to it"
        />
        <EffectPanel
          title="Tasks that it helps"
          cells={cells.filter((cell) => cell.task === name).filter(isMeasured)}
          otherTask={(cell) => cell.source}
          taskTitle={title}
          taskHeading="helped task"
          attentionHeading="attention from it"
        />
      </div>
    </div>
  );
}

function UnknownTask() {
  return (
    <>
      <h1>Unknown task</h1>
      <p>
        The matrix has no task of this name. <a href="#tim">Show the whole matrix</a>
      </p>
    </>
  );
}

interface RowProps {
  tim: Tim;
  row: number;
}

function TaskNavigation({ tim, row, title }: RowProps & { title: TaskTitle }) {
  const [previous, next] = [tim.sources[row - 1], tim.sources[row + 1]];
  return (
    <nav class="row task-navigation" aria-label="Tasks">
      <a href="#tim">The whole matrix</a>
      <span class="row">
        {previous && (
          <a href={`#tim/${previous}`} rel="prev">
            ← {title(previous)}
          </a>
        )}
        {next && (
          <a href={`#tim/${next}`} rel="next">
            {title(next)} →
          </a>
        )}
      </span>
    </nav>
  );
}

function MultitaskGain({ tim, row }: RowProps) {
  const gain = tim.multitask_gain[row];
  if (gain == null) return <p>Not measured.</p>;
  const estimate: Estimate = [gain, tim.gain_lower[row], tim.gain_upper[row]];
  return (
    <p>
      <strong class="number">
        {formatEstimate(formatEffect, estimate)} {tim.metric[row]}
      </strong>{" "}
      compared with learning this task alone, one network each. The 95 % interval{" "}
      {excludes(estimate, 0) ? "excludes" : "includes"} 0.
    </p>
  );
}
