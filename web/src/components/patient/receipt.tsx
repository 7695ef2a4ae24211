import type { Answer, Known } from "../../lib/api";
import { spaced, unitLabel } from "../../lib/numbers";
import { splitByInfluence } from "../../lib/predictions";
import "./receipt.css";

const SHOWN_POINTERS = 10;

/** How the service used the request: what it used, converted, interpreted, merged and ignored. */
export function ReceiptPanel({ answer, known }: { answer: Answer; known: Known }) {
  const { receipt, model } = answer;
  const displayNames = new Map(known.variables.map(({ name, display }) => [name, display]));
  const display = (variable: string) => displayNames.get(variable) ?? variable;
  const { converted = [], read_as = [], merged = [], ignored = [] } = receipt;
  const { used, treatments, notLearned } = splitByInfluence(receipt);
  return (
    <section class="panel receipt">
      <h2>Receipt</h2>
      <Entries
        title={`${used.length} variables and ${treatments.length} treatments used`}
        entries={[
          ...used.map(({ variable, observations, unit }) => ({
            text: `${display(variable)}: ${observations} ${unitLabel(unit) && `in ${unitLabel(unit)}`}`,
          })),
          ...treatments.map((treatment) => ({ text: spaced(treatment) })),
        ]}
      />
      <Entries
        title={`${notLearned.length} read, but without influence on any prediction`}
        open
        entries={notLearned.map((name) => ({
          text: `${spaced(display(name))}: the model learned nothing from it`,
        }))}
      />
      <Entries
        title={`${converted.length} converted from another unit`}
        entries={converted.map((entry) => ({
          pointer: firstPointer(entry),
          text: `${display(entry.variable)}: ${entry.from_unit} to ${entry.to_unit}`,
        }))}
      />
      <Entries
        title={`${read_as.length} interpreted`}
        entries={read_as.map((entry) => ({
          pointer: firstPointer(entry),
          text: `${spaced(entry.read_as)}: ${entry.detail}`,
        }))}
      />
      <Entries
        title={`${merged.length} sorted or merged`}
        entries={merged.map(({ pointers, variable, reason }) => ({
          pointer: pointers.slice(0, SHOWN_POINTERS).join(", "),
          text: `${display(variable)}: ${spaced(reason)}`,
        }))}
      />
      <Entries
        title={`${ignored.length} not used`}
        open
        entries={ignored.map((entry) => ({ pointer: firstPointer(entry), text: entry.detail }))}
      />
      <p class="small muted">
        Predicted by {model.name} {model.version}, <code title={model.digest}>{model.digest.slice(0, 12)}</code>
        {model.recalibrated_by && `, recalibrated by ${model.recalibrated_by}`}.
      </p>
    </section>
  );
}

/** The pointer of an entry, and how many further pointers it covers. */
function firstPointer(entry: { pointer: string; entries?: number | null }): string {
  const more = (entry.entries ?? 1) - 1;
  return more > 0 ? `${entry.pointer} and ${more} more` : entry.pointer;
}

interface Entry {
  pointer?: string;
  text: string;
}

function Entries({ title, open = false, entries }: { title: string; open?: boolean; entries: Entry[] }) {
  if (!entries.length) return null;
  return (
    <details open={open}>
      <summary>{title}</summary>
      <ul class="small">
        {entries.map(({ pointer, text }, i) => (
          <li key={i}>
            {pointer && <code>{pointer}</code>} {text}
          </li>
        ))}
      </ul>
    </details>
  );
}
