import type { Known } from "../../lib/api";
import { formatEstimate } from "../../lib/estimates";
import {
  CALIBRATION_LABELS,
  type Evaluation,
  INPUT_TITLES,
  NOT_MEASURED,
  type RecalibrationResults,
  threeDecimals,
} from "../../lib/evaluation";
import { count } from "../../lib/numbers";
import { Panel } from "../panel";
import { Calibration } from "./calibration";
import { ModelRanking, TaskRanking } from "./ranking";
import { Landmarks, Subgroups } from "./subgroups";

/** All parts of the evaluation that the bundle holds. */
export function EvaluationPanels({ known, evaluation }: { known: Known; evaluation: Evaluation }) {
  const { measured, all, acting, groups, landmarks } = evaluation;
  if (!measured && !all && !acting) {
    return (
      <Panel title="Evaluation">
        <p>This model was not evaluated. Its discrimination and its calibration are unknown.</p>
      </Panel>
    );
  }
  const cohort = known.model.cohorts[0]?.name ?? "the training data";
  return (
    <>
      <InternalRanking evaluation={evaluation} cohort={cohort} />
      {acting && <Calibration results={acting} />}
      {(measured || all) && <TaskRanking known={known} measured={measured} all={all} />}
      {groups && <Subgroups results={groups} />}
      {landmarks && <Landmarks results={landmarks} />}
      <ExternalValidation evaluation={evaluation} cohort={cohort} />
    </>
  );
}

interface PanelProps {
  evaluation: Evaluation;
  /** The name of the cohort that the model was trained on. */
  cohort: string;
}

function InternalRanking({ evaluation: { measured, all }, cohort }: PanelProps) {
  if (!measured && !all) return null;
  return (
    <Panel title="How well the model ranks patients">
      <p>
        Mean AUROC over tasks on held-out hospitals: {cohort}, {count((measured ?? all)?.stays ?? 0)} stays, 24 h after
        admission, five folds by hospital. The tested models were trained like this one, each without its test
        hospitals. In brackets: 95 % bootstrap intervals over hospitals.
      </p>
      <div class="pair">
        {measured && <ModelRanking title={INPUT_TITLES.measured} results={measured} />}
        {all && <ModelRanking title={INPUT_TITLES.all} results={all} />}
      </div>
    </Panel>
  );
}

function ExternalValidation({ evaluation, cohort }: PanelProps) {
  const { measured_external: measured, all_external: all, recalibration } = evaluation;
  if (!measured && !all) return null;
  return (
    <Panel title="External validation">
      <p>
        Trained on {cohort} alone, tested on MIMIC-IV, {count((measured ?? all)?.stays ?? 0)} stays. 95 % bootstrap
        intervals over patients. “Change” is the difference from {cohort} on the same tasks.
      </p>
      <div class="pair">
        {measured && <ModelRanking title={INPUT_TITLES.measured} results={measured} />}
        {all && <ModelRanking title={INPUT_TITLES.all} results={all} />}
      </div>
      {recalibration && <Recalibration results={recalibration} />}
    </Panel>
  );
}

function Recalibration({ results }: { results: RecalibrationResults }) {
  return (
    <>
      <h3>Recalibration for this database</h3>
      <p>
        Recalibrated with {results.patients} of its patients, drawn at random {results.splits} times. Measured on its
        other patients, with all inputs.
      </p>
      <table class="figures">
        <thead>
          <tr>
            <td />
            <th scope="col">before</th>
            <th scope="col">after</th>
          </tr>
        </thead>
        <tbody>
          {Object.entries(CALIBRATION_LABELS).map(([key, label]) => (
            <tr key={key}>
              <th scope="row">{label}</th>
              {[results.before[key], results.after[key]].map((estimate, i) => (
                <td key={i} class="number">
                  {estimate ? formatEstimate(threeDecimals, estimate) : NOT_MEASURED}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
