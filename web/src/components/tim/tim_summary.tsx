import type { Tim } from "../../lib/api";
import { type Estimate, formatEstimate } from "../../lib/estimates";
import { count, decimal } from "../../lib/numbers";
import { certaintyHeadline, certaintyLevel, isMeasured, timCells } from "../../lib/tim_cells";
import { Panel } from "../panel";

/** How the matrix was measured, and how certain it is. */
export function TimSummary({ tim }: { tim: Tim }) {
  const pairs = timCells(tim).filter(isMeasured);
  const certain = pairs.filter((cell) => cell.certain).length;
  const excludingZero = pairs.filter((cell) => certaintyLevel(cell) !== "includes-zero").length;
  const expectedByChance = Math.round(0.05 * pairs.length);
  return (
    <Panel title={certaintyHeadline(certain, pairs.length, tim.patients)}>
      <div class="summary">
        <p>
          {count(tim.coalitions)} coalitions (sets of tasks that one network learns together) were trained and tested on{" "}
          {count(tim.patients)} patients of held-out hospitals. {certain ? count(certain) : "None"} of the{" "}
          {count(pairs.length)} pairs of tasks {certain > 1 ? "are" : "is"} certain at a false discovery rate of 5 %.
          The 95 % intervals of {count(excludingZero)} pairs exclude 0; by chance alone, about {count(expectedByChance)}{" "}
          would. {certain === 0 && "Do not interpret single cells."}
        </p>
        <div>
          {tim.halves && (
            <p>
              The matrices of two halves of the coalitions have a correlation of <Correlation result={tim.halves} />. A
              correlation of 1 means no random error; 0 means only random error.
            </p>
          )}
          {tim.attention_agreement && (
            <p>
              The attention between tasks and their measured effects have a rank correlation of{" "}
              <Correlation result={tim.attention_agreement} />. At 1, attention would show which task helps which; at 0,
              it shows nothing about that.
            </p>
          )}
        </div>
      </div>
      <details>
        <summary>What a cell means. It does not show which disease causes which.</summary>
        <p>{tim.definition}</p>
      </details>
    </Panel>
  );
}

function Correlation({ result }: { result: { value: number; lower: number; upper: number } }) {
  const estimate: Estimate = [result.value, result.lower, result.upper];
  return <strong class="number">{formatEstimate((value) => decimal(value, 2), estimate)}</strong>;
}
