import { useState } from "preact/hooks";
import {
  type Contributions,
  type Explanation,
  MODALITIES,
  type Modality,
  type Prediction,
  type Receipt,
} from "../../lib/api";
import { decimal, percent, points, signed, unitLabel } from "../../lib/numbers";
import { classLabel, hasSingleNumber, rankedClasses } from "../../lib/predictions";
import { BarRow } from "../bar_row";

interface ModalityContributionsProps {
  prediction: Prediction;
  explanation: Explanation;
  receipt: Receipt;
}

/** A waterfall chart from the prediction without any data to the prediction, with one step per modality. */
export function ModalityContributions({ prediction, explanation, receipt }: ModalityContributionsProps) {
  const classes = rankedClasses(prediction).map(([name]) => name);
  const [selectedClass, setSelectedClass] = useState(classes[0] ?? "");
  const explained = explanation.modalities[prediction.task];
  if (!explained) return null;
  const contributions = hasSingleNumber(prediction)
    ? (explained as Contributions)
    : (explained as Record<string, Contributions>)[selectedClass];
  if (!contributions) return null;
  return (
    <>
      <h3>Contribution of each modality</h3>
      {!hasSingleNumber(prediction) && (
        <label class="small">
          to{" "}
          <select value={selectedClass} onChange={(event) => setSelectedClass(event.currentTarget.value)}>
            {classes.map((name) => (
              <option key={name} value={name}>
                {classLabel(name)}
              </option>
            ))}
          </select>
        </label>
      )}
      <Waterfall prediction={prediction} contributions={contributions} receipt={receipt} />
      <p class="small muted">
        {prediction.value != null ? "In days. " : "In percentage points. "}
        The contributions are exact Shapley values: they add up to the prediction. Modalities that carry the same
        information share its contribution.
      </p>
    </>
  );
}

interface WaterfallProps {
  prediction: Prediction;
  contributions: Contributions;
  receipt: Receipt;
}

function Waterfall({ prediction, contributions, receipt }: WaterfallProps) {
  const inDays = prediction.value != null;
  const level = (value: number) => (inDays ? `${decimal(value, 1)} ${unitLabel(prediction.unit)}` : percent(value));
  const change = (value: number) => (inDays ? signed(value, 1) : points(value));
  const { baseline } = contributions;
  const steps = waterfallSteps(contributions);
  const end = steps.at(-1)?.to ?? baseline;
  const levels = [0, baseline, ...steps.map((step) => step.to)];
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const position = (value: number) => (100 * (value - low)) / (high - low || 1);
  const bar = (from: number, to: number) => ({
    left: position(Math.min(from, to)),
    width: position(low + Math.abs(to - from)),
  });
  return (
    <table class="bars waterfall">
      <tbody>
        <BarRow label="No data" number={level(baseline)} fill="neutral-fill" {...bar(0, baseline)} />
        {steps.map(({ name, title, from, to }) => (
          <BarRow
            key={name}
            data-modality={name}
            data-contribution={contributions[name]}
            label={title}
            number={
              contributions[name] === 0 ? (
                <ZeroContribution modality={name} task={prediction.task} receipt={receipt} />
              ) : (
                change(contributions[name])
              )
            }
            fill={to > from ? "more-fill" : "less-fill"}
            {...(to !== from && bar(from, to))}
          />
        ))}
        <BarRow label="Prediction" number={<strong>{level(end)}</strong>} fill="neutral-fill" {...bar(0, end)} />
      </tbody>
    </table>
  );
}

function waterfallSteps(contributions: Contributions) {
  let level = contributions.baseline;
  return MODALITIES.map(([name, title]) => {
    const from = level;
    level += contributions[name];
    return { name, title, from, to: level };
  });
}

/** Why a contribution is zero: the modality is absent, hidden from the task, or has no effect. */
function ZeroContribution(props: { modality: Modality; task: string; receipt: Receipt }) {
  const use = props.receipt.modalities[props.modality];
  if (!use || use.status === "absent") return <span class="muted">not sent</span>;
  if (use.status === "hidden" || use.hidden_from?.includes(props.task)) {
    return (
      <span class="muted" title="No training patient had both this modality and the label of this task.">
        hidden
      </span>
    );
  }
  return <>0</>;
}
