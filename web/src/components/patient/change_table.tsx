import type { Answer } from "../../lib/api";
import { decimal, percent, points } from "../../lib/numbers";
import { largestChanges } from "../../lib/predictions";

const SHOWN_TASKS = 6;

/** The largest differences between two answers, and the length of stay in both. */
export function ChangeTable({ before, after }: { before: Answer; after: Answer }) {
  const changes = largestChanges(before, after, SHOWN_TASKS);
  const [stayBefore, stayAfter] = [before, after].map(lengthOfStay);
  const implausible = after.receipt.ignored?.filter((entry) => entry.reason === "implausible_value") ?? [];
  return (
    <div role="status">
      {implausible.map((entry) => (
        <p key={entry.pointer}>Not used: {entry.detail}</p>
      ))}
      {changes.length === 0 && <p>No probability changes by 0.1 percentage points or more.</p>}
      <table class="change-table">
        <tbody>
          {changes.map(({ prediction, before: probability, after: changed }) => (
            <tr key={prediction.task} data-changed={prediction.task}>
              <th scope="row">{prediction.display}</th>
              <td class="number">
                {percent(probability)} → <data value={changed}>{percent(changed)}</data>
              </td>
              <td class="number">{points(changed - probability)}</td>
            </tr>
          ))}
          {stayBefore != null && stayAfter != null && (
            <tr>
              <th scope="row">Length of stay</th>
              <td class="number">
                {decimal(stayBefore, 1)} → {decimal(stayAfter, 1)} days
              </td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

function lengthOfStay(answer: Answer): number | null | undefined {
  return answer.predictions.find((prediction) => prediction.value != null)?.value;
}
