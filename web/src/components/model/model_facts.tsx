import type { ComponentChildren } from "preact";
import type { Known, Model } from "../../lib/api";
import { count, decimal, signed } from "../../lib/numbers";
import { taskTitles } from "../../lib/tim_cells";
import { Panel } from "../panel";

/** The model's origin: date, network, training cohorts, and later changes to the bundle. */
export function ModelFacts({ known }: { known: Known }) {
  const { model, tasks } = known;
  const [firstHour, lastHour] = model.trained_hours;
  const network = Object.entries(model.network).map(([name, value]) => `${name} ${String(value)}`);
  const facts: [string, ComponentChildren][] = [
    ["Created", model.created],
    ["Tasks", tasks.length],
    ["Network", network.join(", ") || "not recorded"],
    ["Training data", `${firstHour} to ${lastHour} hours after admission`],
    ["Command", <code key="command">{model.command}</code>],
    ["Digest", <code key="digest">{model.digest}</code>],
  ];
  return (
    <Panel title="About the model">
      <dl>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <h3>Training cohorts</h3>
      <Cohorts cohorts={model.cohorts} />
      {model.recalibration && <Recalibration recalibration={model.recalibration} known={known} />}
      {model.reduction && <Reduction reduction={model.reduction} />}
    </Panel>
  );
}

function Cohorts({ cohorts }: { cohorts: Model["cohorts"] }) {
  return (
    <table class="cohorts">
      <thead>
        <tr>
          <th scope="col">cohort</th>
          <th scope="col">patients</th>
          <th scope="col">samples</th>
          <th scope="col">hours since admission</th>
          <th scope="col">source</th>
        </tr>
      </thead>
      <tbody>
        {cohorts.map((cohort) => (
          <tr key={cohort.digest}>
            <th scope="row">{cohort.name}</th>
            <td class="number">{count(cohort.patients)}</td>
            <td class="number">{count(cohort.samples)}</td>
            <td>{cohort.landmarks_hours.join(", ") || "none"}</td>
            <td>{cohort.source}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const SHOWN_SHIFTS = 10;

interface RecalibrationProps {
  recalibration: NonNullable<Model["recalibration"]>;
  known: Known;
}

function Recalibration({ recalibration, known }: RecalibrationProps) {
  const title = taskTitles(known.tasks);
  const largestShifts = Object.entries(recalibration.shift)
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
    .slice(0, SHOWN_SHIFTS)
    .map(([task, shift]) => `${title(task)} ${signed(shift, 2)}`);
  return (
    <>
      <h3>Recalibrated for {recalibration.cohort}</h3>
      <p>
        {count(recalibration.patients)} patients ({recalibration.source}) were used to recalibrate the bundle with the
        digest <code>{recalibration.bundle}</code>. For each disease the ranking of patients is unchanged.
        Probabilities, their intervals and sets, and prevalences are shifted. The largest shifts, in log-odds:{" "}
        {largestShifts.join(", ")}.{" "}
        <strong>
          The numbers below were measured before the recalibration; those on calibration are no longer valid.
        </strong>
      </p>
    </>
  );
}

function Reduction({ reduction }: { reduction: NonNullable<Model["reduction"]> }) {
  const heldOut = reduction.held_out.map(({ patients, cohort }) => `${count(patients)} patients of ${cohort}`);
  return (
    <>
      <h3>Reduced to {reduction.precision}</h3>
      <p>
        The bundle was reduced from the bundle with the digest <code>{reduction.bundle}</code>. Both were compared on{" "}
        {heldOut.join(" and ")} outside the training data: no probability differs by more than{" "}
        {decimal(reduction.largest_difference, 4)}.{" "}
        <strong>The numbers below were measured before the reduction.</strong>
      </p>
      <ul>
        {Object.entries(reduction.graphs).map(([name, graph]) => (
          <li key={name}>
            {name}: {graph.precision}
            {graph.reason && `, ${graph.reason}`}
          </li>
        ))}
      </ul>
    </>
  );
}
