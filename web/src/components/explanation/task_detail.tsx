import type { Evidence, Known, Prediction } from "../../lib/api";
import { decimal, percent, unitLabel } from "../../lib/numbers";
import { classLabel, hasSingleNumber, type Result, rankedClasses } from "../../lib/predictions";
import { BarRow } from "../bar_row";
import { ProbabilityTrack } from "../patient/probability_track";
import { AttentionTable } from "./attention_table";
import { EvidenceTable } from "./evidence_table";
import { ModalityContributions } from "./modality_contributions";
import "./task_detail.css";

interface TaskDetailProps {
  prediction: Prediction;
  result: Result;
  /** The inputs with the largest contributions; undefined while they are loading. */
  evidence: Evidence[] | undefined;
  known: Known;
}

/** One prediction: its meaning, its uncertainty, and its explanation. */
export function TaskDetail({ prediction, result, evidence, known }: TaskDetailProps) {
  const { explanation, receipt } = result.answer;
  return (
    <section class="panel detail" id="detail" tabIndex={-1} aria-label={`Explanation: ${prediction.display}`}>
      <p class="small muted">{prediction.department}</p>
      <h2>{prediction.display}</h2>
      <p>{prediction.means}</p>
      {prediction.abstained ? (
        <p>No prediction: {prediction.abstained.reason}</p>
      ) : (
        <PredictedOutcome prediction={prediction} />
      )}
      {explanation && (
        <>
          <ModalityContributions
            key={prediction.task}
            prediction={prediction}
            explanation={explanation}
            receipt={receipt}
          />
          {hasSingleNumber(prediction) && (
            <EvidenceTable prediction={prediction} evidence={evidence} payload={result.payload} />
          )}
          <AttentionTable task={prediction.task} explanation={explanation} known={known} />
        </>
      )}
      {!explanation && !prediction.abstained && <p>There is no explanation: the attention weights are not finite.</p>}
    </section>
  );
}

function PredictedOutcome({ prediction }: { prediction: Prediction }) {
  if (prediction.probability != null) {
    return <PredictedProbability prediction={prediction} probability={prediction.probability} />;
  }
  if (prediction.value != null) {
    return (
      <p class="headline">
        <strong class="headline-number number">
          {decimal(prediction.value, 1)} {unitLabel(prediction.unit)}
        </strong>
        {prediction.interval && (
          <span class="number">
            {" "}
            {decimal(prediction.interval.low, 1)} to {decimal(prediction.interval.high, 1)}
          </span>
        )}
      </p>
    );
  }
  return <PredictedClasses prediction={prediction} />;
}

function PredictedProbability({ prediction, probability }: { prediction: Prediction; probability: number }) {
  return (
    <>
      <p class="headline">
        <strong class="headline-number number">{percent(probability)}</strong>
        {prediction.interval && (
          <span class="number">
            {" "}
            {percent(prediction.interval.low)} to {percent(prediction.interval.high)}
          </span>
        )}
        {prediction.prevalence != null && (
          <span class="muted"> · training prevalence: {percent(prediction.prevalence)}</span>
        )}
      </p>
      <ProbabilityTrack prediction={prediction} />
      <p class="small muted">{prediction.set ? describeSet(prediction.set) : prediction.no_set}</p>
    </>
  );
}

function PredictedClasses({ prediction }: { prediction: Prediction }) {
  return (
    <>
      {prediction.description && <p>{prediction.description}</p>}
      <table class="bars">
        <tbody>
          {rankedClasses(prediction).map(([name, probability]) => (
            <BarRow key={name} label={classLabel(name)} number={percent(probability)} width={100 * probability} />
          ))}
        </tbody>
      </table>
    </>
  );
}

/** The meaning of a label-conditional conformal set at 90 %. */
function describeSet(set: readonly string[]): string {
  if (set.length === 2) return "Both “yes” and “no” fit this patient. The model cannot decide.";
  if (set.length === 0) return "This patient differs from patients with the disease and from patients without it.";
  if (set[0] === "no") return "Nine in ten patients with the disease differ from this patient.";
  return "Nine in ten patients without the disease differ from this patient. A rare disease can still be unlikely.";
}
