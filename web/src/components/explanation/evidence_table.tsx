import type { Evidence, Payload, Prediction } from "../../lib/api";
import { sliceCharacters } from "../../lib/note_passages";
import { measurement, points, quantity, signed, timeBefore } from "../../lib/numbers";
import { classLabel } from "../../lib/predictions";
import { BarRow } from "../bar_row";

interface EvidenceTableProps {
  prediction: Prediction;
  /** Undefined while the service computes it. */
  evidence: Evidence[] | undefined;
  payload: Payload;
}

/** The inputs with the largest contributions: how the prediction changes when each is left out (occlusion). */
export function EvidenceTable({ prediction, evidence, payload }: EvidenceTableProps) {
  const inDays = prediction.value != null;
  const change = (contribution: number) => (inDays ? signed(contribution, 2) : points(contribution));
  const largest = Math.max(...(evidence ?? []).map((input) => Math.abs(input.contribution)));
  return (
    <>
      <h3>Most important inputs</h3>
      {!evidence && <p role="status">Leaving out each input in turn …</p>}
      {evidence?.length === 0 && <p>No single input changes this prediction.</p>}
      {!!evidence?.length && (
        <>
          <table class="bars evidence">
            <tbody>
              {evidence.map((input) => (
                <BarRow
                  key={input.name + input.pointers.join()}
                  data-evidence={input.name}
                  label={
                    <>
                      {input.display}
                      <div class="small muted">{describeInput(input, payload)}</div>
                    </>
                  }
                  number={<data value={input.contribution}>{change(input.contribution)}</data>}
                  fill={input.contribution > 0 ? "more-fill" : "less-fill"}
                  width={(100 * Math.abs(input.contribution)) / largest}
                />
              ))}
            </tbody>
          </table>
          <p class="small muted">
            How many {inDays ? "days" : "percentage points"} lower (+) or higher (−) the prediction would be without
            this input alone. The numbers do not add up: information that another input also carries counts for neither.
            They do not show the effect of a treatment.
          </p>
        </>
      )}
    </>
  );
}

/** The values and times of an input. */
function describeInput(input: Evidence, payload: Payload): string {
  switch (input.kind) {
    case "tabular":
      return typeof input.value === "number" ? quantity(input.value, input.unit) : classLabel(input.value);
    case "series": {
      const { lowest, highest } = input;
      const range = lowest < highest ? `; ${measurement(lowest)} to ${measurement(highest)}` : "";
      return `${quantity(input.last, input.unit)}, ${timeBefore(payload.as_of, input.time)}${range}`;
    }
    case "treatment": {
      const rate = input.rate != null ? `${quantity(input.rate, input.unit)}; ` : "";
      return `${rate}${input.running ? "running; started" : "ended; started"} ${timeBefore(payload.as_of, input.since)}`;
    }
    case "note":
      return describeNote(input, payload);
    case "image":
      return timeBefore(payload.as_of, input.time);
  }
}

function describeNote(input: Extract<Evidence, { kind: "note" }>, payload: Payload): string {
  const time = timeBefore(payload.as_of, input.time);
  if (input.start == null || input.end == null) {
    return `${input.pointers.length + (input.further_pointers ?? 0)} notes, the latest ${time}`;
  }
  const noteIndex = Number(input.pointers[0]?.split("/")[2]);
  const text = payload.notes?.[noteIndex]?.text ?? "";
  return `“${sliceCharacters(text, input.start, input.end).trim()}”, ${time}`;
}
