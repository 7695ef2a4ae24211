import { useEffect, useState } from "preact/hooks";
import { type Answer, type Problem, ProblemError, predict, type Variable } from "../../lib/api";
import { measurement, unitLabel } from "../../lib/numbers";
import type { Result } from "../../lib/predictions";
import { type LatestValue, latestValues, sliderRange, sliderStep, withValue } from "../../lib/what_if_payload";
import { ProblemNote } from "../problem_note";
import { ChangeTable } from "./change_table";
import "./what_if.css";

const DEBOUNCE_MS = 120;

interface WhatIfProps {
  result: Result;
  variables: Variable[];
  changed: Answer | undefined;
  setChanged: (answer: Answer | undefined) => void;
}

/** A slider that changes the latest value of one series, and the predictions that change with it. */
export function WhatIf({ result, variables, changed, setChanged }: WhatIfProps) {
  const choices = latestValues(result.payload, variables);
  const [choice, setChoice] = useState(0);
  const [value, setValue] = useState<number>();
  const latest = choices[choice];

  useEffect(() => {
    setChoice(0);
    setValue(undefined);
  }, [result]);
  const problem = useChangedPrediction(result, latest, value, setChanged);

  if (!latest) return null;
  const selectChoice = (index: number) => {
    setChoice(index);
    setValue(undefined);
  };
  return (
    <section class="panel what-if print-hidden">
      <h2>What if a value were different?</h2>
      <div class="row">
        <label>
          Latest{" "}
          <select value={choice} onChange={(event) => selectChoice(Number(event.currentTarget.value))}>
            {choices.map(({ variable }, i) => (
              <option key={i} value={i}>
                {variable.display}
              </option>
            ))}
          </select>
        </label>
        <ValueInputs latest={latest} value={value ?? latest.value} setValue={setValue} />
        <button type="button" disabled={(value ?? latest.value) === latest.value} onClick={() => setValue(undefined)}>
          Reset to {measurement(latest.value)}
        </button>
      </div>
      {problem && <ProblemNote problem={problem} />}
      {changed && <ChangeTable before={result.answer} after={changed} />}
      <p class="small muted">
        The model predicts for a second patient who differs only in this value. This does not show the effect of a
        treatment.
      </p>
    </section>
  );
}

/** Requests the prediction for the changed value, after a pause of the slider. Returns the problem, if any. */
function useChangedPrediction(
  result: Result,
  latest: LatestValue | undefined,
  value: number | undefined,
  setChanged: (answer: Answer | undefined) => void,
): Problem | undefined {
  const [problem, setProblem] = useState<Problem>();
  useEffect(() => {
    setProblem(undefined);
    if (!latest || value === undefined || value === latest.value) {
      setChanged(undefined);
      return;
    }
    const controller = new AbortController();
    const body = JSON.stringify(withValue(result.payload, latest, value));
    const timer = setTimeout(() => {
      predict(body, { explain: "none" }, controller.signal).then(setChanged, (error) => {
        if (error instanceof ProblemError) setProblem(error.problem);
        else if (!controller.signal.aborted) throw error;
      });
    }, DEBOUNCE_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [result, latest?.seriesIndex, value]);
  return problem;
}

interface ValueInputsProps {
  latest: LatestValue;
  value: number;
  setValue: (value: number) => void;
}

function ValueInputs({ latest, value, setValue }: ValueInputsProps) {
  const range = sliderRange(latest);
  const label = `${latest.variable.display}, latest value`;
  return (
    <>
      <input
        type="range"
        aria-label={label}
        min={range[0]}
        max={range[1]}
        step={sliderStep(range)}
        value={value}
        onInput={(event) => setValue(event.currentTarget.valueAsNumber)}
      />
      <span class="number">
        <input
          type="number"
          aria-label={`${label}, as a number`}
          step="any"
          value={value}
          onInput={(event) => {
            const number = event.currentTarget.valueAsNumber;
            if (Number.isFinite(number)) setValue(number);
          }}
        />{" "}
        {unitLabel(latest.unit ?? latest.variable.units[0])}
      </span>
    </>
  );
}
