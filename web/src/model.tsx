import type { ComponentChildren } from "preact";
import type { Model } from "./api";
import { type Known, Panel } from "./app";
import { Card } from "./card";
import { Evaluated, type Evaluation } from "./evaluation";
import { decimal, signed } from "./numbers";
import { Seen } from "./seen";
import "./model.css";

/** What the model is, what was measured of it, and what the service has seen. */
export function ModelView({ known }: { known: Known }) {
  const { model } = known;
  return (
    <div class="model">
      <h1>
        {model.name} {model.version}
      </h1>
      <About known={known} />
      <Evaluated known={known} found={model.evaluation as Evaluation} />
      <Seen known={known} />
      <Card />
    </div>
  );
}

function About({ known }: { known: Known }) {
  const { model, tasks } = known;
  const [first, last] = model.trained_hours;
  const facts: [string, ComponentChildren][] = [
    ["Made on", model.created],
    ["Tasks", tasks.length],
    [
      "Network",
      Object.entries(model.network)
        .map(([name, value]) => `${name} ${String(value)}`)
        .join(", ") || "not told",
    ],
    ["Learned from", `${first} to ${last} hours after admission`],
    ["Command", <code>{model.command}</code>],
    ["Digest", <code>{model.digest}</code>],
  ];
  return (
    <Panel title="What it is">
      <dl>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <h3>What it learned from</h3>
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
          {model.cohorts.map((cohort) => (
            <tr key={cohort.digest}>
              <th scope="row">{cohort.name}</th>
              <td class="number">{cohort.patients.toLocaleString("en")}</td>
              <td class="number">{cohort.samples.toLocaleString("en")}</td>
              <td>{cohort.landmarks_hours.join(", ") || "none"}</td>
              <td>{cohort.source}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {model.recalibration && <Recalibration said={model.recalibration} known={known} />}
      {model.reduction && <Reduction said={model.reduction} />}
    </Panel>
  );
}

const MOVED = 10;

function Recalibration({ said, known }: { said: NonNullable<Model["recalibration"]>; known: Known }) {
  const display = new Map(known.tasks.map((task) => [task.name, task.display]));
  const largest = Object.entries(said.shift)
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
    .slice(0, MOVED)
    .map(([task, by]) => `${display.get(task) ?? task} ${signed(by, 2)}`);
  return (
    <>
      <h3>Recalibrated for {said.cohort}</h3>
      <p>
        By {said.patients.toLocaleString("en")} patients ({said.source}), from the bundle of the digest{" "}
        <code>{said.bundle}</code>. The order in which a disease ranks patients is as it was; probabilities, their
        intervals and sets, and prevalences are moved. The largest moves, in log-odds: {largest.join(", ")}.{" "}
        <strong>The figures below were measured before that; those of calibration do not hold any more.</strong>
      </p>
    </>
  );
}

function Reduction({ said }: { said: NonNullable<Model["reduction"]> }) {
  const compared = said.held_out.map((one) => `${one.patients.toLocaleString("en")} patients of ${one.cohort}`);
  return (
    <>
      <h3>Reduced to {said.precision}</h3>
      <p>
        From the bundle of the digest <code>{said.bundle}</code>. Before and after were compared by{" "}
        {compared.join(" and ")}, who are no part of the training data: no probability moves by more than{" "}
        {decimal(said.largest_difference, 4)}. <strong>The figures below are those of the bundle before.</strong>
      </p>
      <ul>
        {Object.entries(said.graphs).map(([name, graph]) => (
          <li key={name}>
            {name}: {graph.precision}
            {graph.reason && `, ${graph.reason}`}
          </li>
        ))}
      </ul>
    </>
  );
}
