import type { Answer } from "./api";
import type { Known } from "./app";
import { unit } from "./numbers";

const SHOWN = 10;

/** Where an entry is, and how many more places it stands for. */
function place(entry: { pointer: string; entries?: number | null }) {
  const more = (entry.entries ?? 1) - 1;
  return more > 0 ? `${entry.pointer} and ${more} more` : entry.pointer;
}

/** What was done with what was sent, and by which model. Nothing that was not used is left unsaid. */
export function ReceiptPanel({ answer, known }: { answer: Answer; known: Known }) {
  const { receipt, model } = answer;
  const display = new Map(known.variables.map((one) => [one.name, one.display]));
  const name = (variable: string) => display.get(variable) ?? variable;
  const { used = [], treatments = [], converted = [], read_as = [], merged = [], ignored = [] } = receipt;
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
        entries={converted.map((one) => [place(one), `${name(one.variable)}: ${one.from_unit} to ${one.to_unit}`])}
      />
      <Entries
        title={`${read_as.length} read as something else than was written`}
        entries={read_as.map((one) => [place(one), `${one.read_as.replaceAll("_", " ")}: ${one.detail}`])}
      />
      <Entries
        title={`${merged.length} put in order or together`}
        entries={merged.map((one) => [one.pointers.slice(0, SHOWN).join(", "), `${name(one.variable)}: ${one.reason.replaceAll("_", " ")}`])}
      />
      <Entries title={`${ignored.length} not used`} open entries={ignored.map((one) => [place(one), one.detail])} />
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
