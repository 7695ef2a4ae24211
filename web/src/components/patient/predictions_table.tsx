import { useState } from "preact/hooks";
import type { Answer, Prediction } from "../../lib/api";
import { countPredictions, groupByDepartment, sortByDistance } from "../../lib/predictions";
import { PredictionCells } from "./prediction_cells";
import "./predictions_table.css";

const ORDERS = { department: "department", distance: "distance from the prevalence" };
type Order = keyof typeof ORDERS;

interface PredictionsTableProps {
  answer: Answer;
  /** The answer after a what-if change. */
  changed: Answer | undefined;
  selected: string | undefined;
  select: (task: string) => void;
}

/** All predictions with their intervals and prevalences. */
export function PredictionsTable({ answer, changed, selected, select }: PredictionsTableProps) {
  const [order, setOrder] = useState<Order>("department");
  const changedByTask = new Map(changed?.predictions.map((prediction) => [prediction.task, prediction]));
  const groups = order === "department" ? groupByDepartment(answer.predictions) : sortByDistance(answer.predictions);
  return (
    <section class="panel predictions">
      <div class="row">
        <h2>{countPredictions(answer)}</h2>
        <label class="small print-hidden">
          sorted by{" "}
          <select value={order} onChange={(event) => setOrder(event.currentTarget.value as Order)}>
            {Object.entries(ORDERS).map(([name, title]) => (
              <option key={name} value={name}>
                {title}
              </option>
            ))}
          </select>
        </label>
      </div>
      <table>
        <TableHead />
        {groups.map(({ title, predictions }) => (
          <tbody key={title}>
            {title && (
              <tr class="department">
                <th scope="rowgroup" colSpan={5}>
                  {title}
                </th>
              </tr>
            )}
            {predictions.map((prediction) => (
              <tr
                key={prediction.task}
                data-task={prediction.task}
                class={prediction.task === selected ? "selected" : ""}
              >
                <TaskHeading prediction={prediction} selected={prediction.task === selected} select={select} />
                <PredictionCells prediction={prediction} changed={changedByTask.get(prediction.task)} />
              </tr>
            ))}
          </tbody>
        ))}
      </table>
    </section>
  );
}

function TableHead() {
  return (
    <>
      <caption class="small muted">
        <span class="key dot" aria-hidden="true" /> probability <span class="key bar" aria-hidden="true" /> its
        uncertainty <span class="key tick" aria-hidden="true" /> prevalence in the training cohort
      </caption>
      <thead>
        <tr class="small muted">
          <th scope="col">
            <span class="visually-hidden">Task</span>
          </th>
          <th scope="col">predicted</th>
          <th scope="col">
            <span class="visually-hidden">Chart</span>
          </th>
          <th scope="col">prevalence</th>
          <th scope="col">not ruled out</th>
        </tr>
      </thead>
    </>
  );
}

interface TaskHeadingProps {
  prediction: Prediction;
  selected: boolean;
  select: (task: string) => void;
}

function TaskHeading({ prediction, selected, select }: TaskHeadingProps) {
  return (
    <th scope="row">
      <button
        type="button"
        class="link"
        aria-current={selected ? "true" : undefined}
        title={prediction.means}
        onClick={() => select(prediction.task)}
      >
        {prediction.display}
      </button>
    </th>
  );
}
