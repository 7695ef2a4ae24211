import { MODALITIES } from "../../lib/api";
import { percent } from "../../lib/numbers";
import type { Result } from "../../lib/predictions";
import "./patient_header.css";

/** The patient, how each modality was used, and the warnings of the receipt. */
export function PatientHeader({ result: { payload, answer } }: { result: Result }) {
  const { modalities, warnings } = answer.receipt;
  return (
    <section aria-label="Patient and modalities">
      <h1>
        {payload.patient_id ? `Patient ${payload.patient_id}` : "Patient"}{" "}
        <span class="muted">as of {payload.as_of}</span>
      </h1>
      <ul class="row chips">
        {MODALITIES.map(([name, title]) => {
          const use = modalities[name];
          return (
            <li key={name} class={`chip ${use?.status ?? "absent"}`}>
              {title}: {use?.status ?? "absent"}
              {use?.unusual != null && (
                <span class="muted"> · more unusual than {percent(use.unusual)} of the training patients</span>
              )}
            </li>
          );
        })}
        <li class="print-hidden">
          <button type="button" onClick={() => print()}>
            Print on one page
          </button>
        </li>
      </ul>
      {!!warnings?.length && (
        <ul class="problem">
          {warnings.map((warning) => (
            <li key={warning}>{warning}</li>
          ))}
        </ul>
      )}
    </section>
  );
}
