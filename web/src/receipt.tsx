import type { Answer } from "./api";
import type { Known } from "./app";
import { unit } from "./numbers";

/** What was done with what was sent, and by which model. Nothing that was not used is left unsaid. */
export function ReceiptPanel({ answer, known }: { answer: Answer; known: Known }) {
  const { receipt, model } = answer;
  const display = new Map(known.variables.map((one) => [one.name, one.display]));
  const name = (variable: string) => display.get(variable) ?? variable;
  const { used = [], treatments = [], converted = [], merged = [], ignored = [] } = receipt;
  return (
    <section class="panel receipt">
      <h2>Receipt</h2>
      <Entries
        title={`${used.length} variables and ${treatments.length} treatments used`}
        entries={[
          ...used.map((one) => ["", `${name(one.variable)}: ${one.observations} ${unit(one.unit) && `in ${unit(one.unit)}`}`]),
          ...treatments.map((one) => ["", one.replaceAll("_", " ")]),
        ]}
      />
      <Entries
        title={`${converted.length} in another unit, converted`}
        entries={converted.map((one) => [one.pointer, `${name(one.variable)}: ${one.from_unit} to ${one.to_unit}`])}
      />
      <Entries
        title={`${merged.length} put in order or together`}
        entries={merged.map((one) => [one.pointers.join(", "), `${name(one.variable)}: ${one.reason.replaceAll("_", " ")}`])}
      />
      <Entries title={`${ignored.length} not used`} open entries={ignored.map((one) => [one.pointer, one.detail])} />
      <p class="small quiet">
        Answered by {model.name} {model.version}, <code title={model.digest}>{model.digest.slice(0, 12)}</code>
        {model.recalibrated_by && `, corrected by ${model.recalibrated_by}`}.
      </p>
    </section>
  );
}

function Entries(props: { title: string; open?: boolean; entries: string[][] }) {
  if (!props.entries.length) return null;
  return (
    <details open={props.open ?? false}>
      <summary>{props.title}</summary>
      <ul class="small">
        {props.entries.map(([pointer, text], i) => (
          <li key={i}>
            {pointer && <code>{pointer}</code>} {text}
          </li>
        ))}
      </ul>
    </details>
  );
}
