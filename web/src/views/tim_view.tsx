import { useMemo, useState } from "preact/hooks";
import { Panel } from "../components/panel";
import { Heatmap } from "../components/tim/heatmap";
import { NoTim } from "../components/tim/no_tim";
import { TimSummary } from "../components/tim/tim_summary";
import type { Known, Tim } from "../lib/api";
import { VIEWS } from "../lib/route";
import { orderByDepartment, orderBySimilarity } from "../lib/task_order";
import { taskTitles, timCells } from "../lib/tim_cells";
import { TaskView } from "./task_view";
import "./tim_view.css";

const ORDERS = { department: "by department", similarity: "by similarity" };
type Order = keyof typeof ORDERS;

/** The task interaction matrix, or one task of it. */
export function TimView({ known, task }: { known: Known; task?: string | undefined }) {
  if (!known.tim) return <NoTim title={VIEWS.tim} />;
  if (task === undefined) return <MatrixView known={known} tim={known.tim} />;
  return <TaskView key={task} known={known} tim={known.tim} name={task} />;
}

function MatrixView({ known, tim }: { known: Known; tim: Tim }) {
  const [order, setOrder] = useState<Order>("department");
  const title = useMemo(() => taskTitles(known.tasks), [known]);
  const cells = useMemo(() => timCells(tim), [tim]);
  const groups = useMemo(
    () => (order === "department" ? orderByDepartment(tim, known.tasks) : orderBySimilarity(tim)),
    [order, tim],
  );
  return (
    <div class="tim">
      <h1>{VIEWS.tim}</h1>
      <TimSummary tim={tim} />
      <Panel title="Task interaction matrix">
        <p class="row">
          <span>
            Row: the task that is helped (<span class="more-word">orange</span>) or harmed (
            <span class="less-word">blue</span>). Column: the task that was learned with it. Select a cell or a row to
            open its task.
          </span>
          <label class="order">
            Tasks{" "}
            <select value={order} onChange={(event) => setOrder(event.currentTarget.value as Order)}>
              {Object.entries(ORDERS).map(([name, text]) => (
                <option key={name} value={name}>
                  {text}
                </option>
              ))}
            </select>
          </label>
        </p>
        <Heatmap key={order} groups={groups} cells={cells} title={title} />
      </Panel>
    </div>
  );
}
