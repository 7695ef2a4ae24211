import { useMemo, useState } from "preact/hooks";
import type { Tim } from "./api";
import { type Known, Panel } from "./app";
import { cells, measured, surety, titles } from "./cells";
import { type Ranged, ranged } from "./charts";
import { Heatmap } from "./heatmap";
import { decimal } from "./numbers";
import { byDepartment, bySimilarity } from "./order";
import { TaskPage } from "./task";
import "./tim.css";

const ORDERS = { department: "by department", similarity: "by similarity" };

export function TimView({ known, of }: { known: Known; of?: string | undefined }) {
  if (!known.tim) return <NoTim title="Which task teaches which" />;
  if (of === undefined) return <Whole known={known} tim={known.tim} />;
  return <TaskPage key={of} known={known} tim={known.tim} name={of} />;
}

export function NoTim({ title }: { title: string }) {
  return (
    <>
      <h1>{title}</h1>
      <Panel title="Not measured">
        <p>
          This bundle has no TIM, the task interaction matrix. It is made after training, by <code>m3h-model tim</code>,
          and travels with the model once <code>m3h-export</code> has put it into the bundle: see “Which task teaches
          which” in the README.
        </p>
      </Panel>
    </>
  );
}

function Whole({ known, tim }: { known: Known; tim: Tim }) {
  const [order, sort] = useState<keyof typeof ORDERS>("department");
  const title = useMemo(() => titles(known.tasks), [known]);
  const all = useMemo(() => cells(tim), [tim]);
  const groups = useMemo(
    () => (order === "department" ? byDepartment(tim, known.tasks) : bySimilarity(tim)),
    [order, tim],
  );
  return (
    <div class="tim">
      <h1>Which task teaches which</h1>
      <Verdict tim={tim} />
      <Panel title="Task interaction matrix">
        <p class="row">
          <span>
            Row: the task that is helped (<span class="more-word">orange</span>) or harmed (
            <span class="less-word">blue</span>). Column: the task that was learned beside it. A row or a cell leads to
            its task.
          </span>
          <label class="order">
            Tasks{" "}
            <select value={order} onChange={(event) => sort(event.currentTarget.value as keyof typeof ORDERS)}>
              {Object.entries(ORDERS).map(([name, words]) => (
                <option key={name} value={name}>
                  {words}
                </option>
              ))}
            </select>
          </label>
        </p>
        <Heatmap key={order} groups={groups} cells={all} title={title} />
      </Panel>
    </div>
  );
}

function Verdict({ tim }: { tim: Tim }) {
  const pairs = cells(tim).filter(measured);
  const certain = pairs.filter((cell) => cell.certain).length;
  const apart = pairs.filter((cell) => surety(cell) !== "unclear").length;
  const patients = whole(tim.patients);
  return (
    <Panel title={certainty(certain, pairs.length, tim.patients)}>
      <div class="verdict">
        <p>
          {whole(tim.coalitions)} coalitions of tasks were learned together and tested on {patients} patients of
          hospitals held out. Of {whole(pairs.length)} pairs of tasks, {certain ? whole(certain) : "none"}{" "}
          {certain > 1 ? "are" : "is"} certain at a false discovery rate of 5 %. The 95 % intervals of {whole(apart)}{" "}
          leave out zero; chance alone would make about {whole(Math.round(0.05 * pairs.length))} do so.
          {certain === 0 && " Do not read single cells."}
        </p>
        <div>
          {tim.halves && (
            <p>
              The matrices of two halves of the coalitions have a correlation of <Agreement found={tim.halves} />: 1 if
              nothing were chance, 0 if all were.
            </p>
          )}
          {tim.attention_agreement && (
            <p>
              The attention that a task pays to another has a rank correlation of{" "}
              <Agreement found={tim.attention_agreement} /> with how much that other helps it: 1 if attention showed who
              teaches whom, 0 if it did not.
            </p>
          )}
        </div>
      </div>
      <details>
        <summary>What a cell means, and what it does not: it is not which disease causes which</summary>
        <p>{tim.definition}</p>
      </details>
    </Panel>
  );
}

export function certainty(certain: number, pairs: number, patients: number): string {
  if (certain > 0) return `${whole(certain)} of ${whole(pairs)} cells ${certain === 1 ? "is" : "are"} certain`;
  return `No cell is certain: ${whole(patients)} patients are too few to tell which task teaches which`;
}

function Agreement({ found }: { found: { value: number; lower: number; upper: number } }) {
  const told: Ranged = [found.value, found.lower, found.upper];
  return <strong class="number">{ranged((value) => decimal(value, 2), told)}</strong>;
}

const whole = (count: number) => count.toLocaleString("en");
