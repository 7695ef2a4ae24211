import { scaleSqrt } from "d3-scale";
import {
  CALIBRATION_LABELS,
  type CalibrationCurve,
  type CalibrationResults,
  NOT_MEASURED,
  threeDecimals,
} from "../../lib/evaluation";
import { share } from "../../lib/numbers";
import { Panel } from "../panel";

const COVERAGE_LABELS: Record<string, string> = {
  positives: "patients with the disease whose set contains “yes” (target: 90 %)",
  negatives: "patients without the disease whose set contains “no” (target: 90 %)",
  undecided: "sets that contain both (undecided)",
  length_of_stay: "lengths of stay inside their interval (target: 90 %)",
};

type NamedResults = [title: string, results: CalibrationResults];

/** Calibration curves, calibration measures and coverage, for all inputs and for measured values only. */
export function Calibration({ results }: { results: CalibrationResults }) {
  const columns: NamedResults[] = [["All inputs", results]];
  if (results.measured) columns.push(["Measured", results.measured]);
  return (
    <Panel title="Calibration and coverage">
      <p>
        Held-out hospitals, at 24 h, the {results.tasks} most frequent tasks pooled. If predicted probabilities equal
        observed frequencies, the dots lie on the diagonal. The report has no intervals for these numbers.
      </p>
      <div class="calibration">
        {columns.map(([title, { curve }]) => curve && <CurveFigure key={title} title={title} curve={curve} />)}
        <table class="figures">
          <thead>
            <tr>
              <td />
              {columns.map(([title]) => (
                <th key={title} scope="col">
                  {title}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <MeasureRows
              labels={CALIBRATION_LABELS}
              columns={columns.map(([, column]) => column.calibration)}
              format={threeDecimals}
            />
            <MeasureRows
              labels={COVERAGE_LABELS}
              columns={columns.map(([, column]) => column.coverage)}
              format={share}
            />
          </tbody>
        </table>
      </div>
    </Panel>
  );
}

interface MeasureRowsProps {
  labels: Record<string, string>;
  columns: Record<string, number | null>[];
  format: (value: number) => string;
}

function MeasureRows({ labels, columns, format }: MeasureRowsProps) {
  return Object.entries(labels).map(([key, label]) => (
    <tr key={key}>
      <th scope="row">{label}</th>
      {columns.map((column, c) => {
        const value = column[key];
        return (
          <td key={c} class="number">
            {value == null ? NOT_MEASURED : format(value)}
          </td>
        );
      })}
    </tr>
  ));
}

type Bin = readonly [predicted: number, observed: number];

function CurveFigure({ title, curve }: { title: string; curve: CalibrationCurve }) {
  const bins = curve.predicted.map((predicted, i): Bin => [predicted, curve.observed[i] ?? 0]);
  return (
    <figure class="curve">
      <figcaption>{title}</figcaption>
      <CurvePlot title={title} bins={bins} />
      <details>
        <summary>The {bins.length} points of the curve</summary>
        <table>
          <thead>
            <tr>
              <th scope="col">predicted</th>
              <th scope="col">observed</th>
            </tr>
          </thead>
          <tbody>
            {bins.map(([predicted, observed], i) => (
              <tr key={i}>
                <td class="number">{share(predicted)}</td>
                <td class="number">{share(observed)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </figure>
  );
}

const SIDE = 300;
const TICKS = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1];

/** The axes are square roots: most probabilities are low, and on linear axes their dots would overlap. */
function CurvePlot({ title, bins }: { title: string; bins: Bin[] }) {
  const x = scaleSqrt([0, 1], [0, SIDE]);
  const y = scaleSqrt([0, 1], [SIDE, 0]);
  return (
    <svg
      viewBox={`-44 -8 ${SIDE + 60} ${SIDE + 50}`}
      role="img"
      aria-label={`Calibration curve, ${title}. Its points are listed below.`}
    >
      {TICKS.map((tick) => (
        <g key={tick}>
          <path class="grid" d={`M${x(tick)} 0V${SIDE}M0 ${y(tick)}H${SIDE}`} />
          <text x={x(tick)} y={SIDE + 16} text-anchor="middle">
            {100 * tick}
          </text>
          <text x="-6" y={y(tick)} dy="0.35em" text-anchor="end">
            {100 * tick}
          </text>
        </g>
      ))}
      <path class="ideal" d={`M0 ${SIDE}L${SIDE} 0`} />
      <path class="line" d={`M${bins.map(([predicted, observed]) => `${x(predicted)} ${y(observed)}`).join("L")}`} />
      {bins.map(([predicted, observed], i) => (
        <circle key={i} cx={x(predicted)} cy={y(observed)} r="4" />
      ))}
      <text x={SIDE / 2} y={SIDE + 36} text-anchor="middle">
        predicted, %
      </text>
      <text transform={`translate(-34 ${SIDE / 2}) rotate(-90)`} text-anchor="middle">
        observed, %
      </text>
    </svg>
  );
}
