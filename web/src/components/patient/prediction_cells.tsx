import type { Prediction } from "../../lib/api";
import { decimal, percent, points, unitLabel } from "../../lib/numbers";
import { classLabel, rankedClasses, visibleChange } from "../../lib/predictions";
import { ProbabilityTrack } from "./probability_track";

interface PredictionCellsProps {
  prediction: Prediction;
  /** The prediction after a what-if change. */
  changed: Prediction | undefined;
}

/** The cells of a prediction's row: number, chart, prevalence and conformal set. */
export function PredictionCells({ prediction, changed }: PredictionCellsProps) {
  if (prediction.abstained) {
    return (
      <td colSpan={4} class="muted">
        no prediction: {prediction.abstained.reason}
      </td>
    );
  }
  if (prediction.probability != null) {
    return <ProbabilityCells prediction={prediction} probability={prediction.probability} changed={changed} />;
  }
  if (prediction.value != null) {
    return <ValueCells prediction={prediction} value={prediction.value} changed={changed} />;
  }
  return <ClassCells prediction={prediction} />;
}

const SETS: Record<string, string> = { no: "no", yes: "yes", "no,yes": "no, yes", "": "neither fits" };

function ProbabilityCells({ prediction, probability, changed }: PredictionCellsProps & { probability: number }) {
  const changedProbability = visibleChange(probability, changed?.probability);
  return (
    <>
      <td class="number">
        <data value={probability}>{percent(probability)}</data>
        {changedProbability !== undefined && <span class="change"> {points(changedProbability - probability)}</span>}
      </td>
      <td class="chart">
        <ProbabilityTrack prediction={prediction} changed={changedProbability} />
      </td>
      <td class="number muted">{prediction.prevalence != null && percent(prediction.prevalence)}</td>
      <td class="set small muted" title={prediction.no_set ?? undefined}>
        {prediction.set ? SETS[prediction.set.join()] : prediction.no_set ? "too few patients" : ""}
      </td>
    </>
  );
}

function ValueCells({ prediction, value, changed }: PredictionCellsProps & { value: number }) {
  const { interval, unit } = prediction;
  return (
    <>
      <td class="number">
        <data value={value}>
          {decimal(value, 1)} {unitLabel(unit)}
        </data>
        {changed?.value != null && changed.value !== value && (
          <span class="change"> → {decimal(changed.value, 1)}</span>
        )}
      </td>
      <td colSpan={3} class="small muted">
        {interval &&
          `nine in ten such patients: ${decimal(interval.low, 1)} to ${decimal(interval.high, 1)} ${unitLabel(unit)}`}
      </td>
    </>
  );
}

function ClassCells({ prediction }: { prediction: Prediction }) {
  const [mostProbable] = rankedClasses(prediction);
  return (
    <>
      <td class="number">{mostProbable && <data value={mostProbable[1]}>{percent(mostProbable[1])}</data>}</td>
      <td colSpan={3} class="small">
        {prediction.kind === "clustering" ? `group ${prediction.cluster}` : mostProbable && classLabel(mostProbable[0])}
        {prediction.description && <span class="muted print-hidden">: {prediction.description}</span>}
        {prediction.set && (
          <span class="muted">; not ruled out: {prediction.set.map(classLabel).join(", ") || "none fits"}</span>
        )}
      </td>
    </>
  );
}
