// What the evaluation says (docs/results.json of `m3h-model evaluate`, which the bundle keeps).
import type { ComponentChildren } from "preact";
import { scaleSqrt } from "d3-scale";
import { type Known, Panel } from "./app";
import { apart, DotTable, Figure, ranged, type Ranged } from "./charts";
import { decimal, share, signed } from "./numbers";

/** What is read of it here. Each part may be missing. */
export interface Evaluation {
  measured?: Tested;
  all?: Tested;
  measured_external?: Tested;
  all_external?: Tested;
  acting?: Acting;
  groups?: Record<string, Record<string, Tally>>;
  landmarks?: Record<string, Tally & { models: Record<string, Ranged> }>;
  recalibration?: { patients: number; splits: number; before: Record<string, Ranged>; after: Record<string, Ranged> };
}

interface Tested {
  stays: number;
  tasks: number;
  fewest_positives: number;
  positives?: Record<string, number>;
  models: Record<
    string,
    { auroc: Ranged; by_task: Record<string, number | Ranged>; m3h_ahead_by?: Ranged; change?: Ranged }
  >;
}

interface Acting {
  tasks: number;
  calibration: Record<string, number | null>;
  coverage: Record<string, number | null>;
  curve?: { predicted: number[]; observed: number[] };
  measured?: Acting;
}

interface Tally {
  stays: number;
  tasks: number;
  small?: boolean;
  auroc?: Ranged;
  against_everyone?: Ranged;
  observed_to_expected?: Ranged;
}

const INPUTS = {
  measured: "Vital signs, laboratory values, demographics",
  all: "All inputs: also treatments and notes",
};

const MODELS: Record<string, string> = {
  m3h: "M3H",
  m3h_one: "M3H, one network",
  single_task: "same network, each task alone",
  shared_trunk: "shared trunk, no attention",
  lightgbm: "LightGBM, each task alone",
  logistic_regression: "logistic regression, each task alone",
};

const CALIBRATION: Record<string, string> = {
  slope: "slope (1 is right)",
  intercept: "intercept (0 is right)",
  brier_skill: "Brier skill (0: the prevalence alone)",
  calibration_error: "calibration error, ten bins",
  noise_floor: "what chance alone makes of it",
};

const COVERAGE: Record<string, string> = {
  positives: "patients with the disease whose set holds “yes” (made for 90 %)",
  negatives: "patients without it whose set holds “no” (made for 90 %)",
  undecided: "sets that hold both: cannot say",
  length_of_stay: "lengths of stay inside their interval (made for 90 %)",
};

const three = (value: number) => decimal(value, 3);
const plus = (value: number) => signed(value, 3);
const two = (value: number) => decimal(value, 2);
const NONE = "not measured";

export function Evaluated({ known, found }: { known: Known; found: Evaluation }) {
  const { measured, all, measured_external, all_external, acting, groups, landmarks } = found;
  if (!measured && !all && !acting) {
    return (
      <Panel title="Evaluation">
        <p>
          This model was not evaluated: how well it ranks and how far its probabilities can be trusted is not known.
        </p>
      </Panel>
    );
  }
  const home = known.model.cohorts[0]?.name ?? "the data that it learned from";
  return (
    <>
      {(measured || all) && (
        <Panel title="How well patients are ranked">
          <p>
            Mean AUROC over tasks on hospitals never seen: {home}, {(measured ?? all)?.stays.toLocaleString("en")}{" "}
            stays, 24 h after admission, five folds by hospital. The models that were tested were made as this one was,
            each without the hospitals that test it. In brackets: 95 % intervals of bootstraps over hospitals.
          </p>
          <div class="pair">
            {measured && <Models title={INPUTS.measured} found={measured} />}
            {all && <Models title={INPUTS.all} found={all} />}
          </div>
        </Panel>
      )}
      {acting && <Calibration found={acting} />}
      {(measured || all) && <ByTask known={known} measured={measured} all={all} />}
      {groups && <Groups found={groups} />}
      {landmarks && <Landmarks found={landmarks} />}
      {(measured_external || all_external) && (
        <Panel title="On another database">
          <p>
            Learned from {home} alone, tested on MIMIC-IV,{" "}
            {(measured_external ?? all_external)?.stays.toLocaleString("en")} stays: intervals of bootstraps over
            patients. “Change”: against {home}, on the same tasks.
          </p>
          <div class="pair">
            {measured_external && <Models title={INPUTS.measured} found={measured_external} />}
            {all_external && <Models title={INPUTS.all} found={all_external} />}
          </div>
          {found.recalibration && <Recalibrated found={found.recalibration} />}
        </Panel>
      )}
    </>
  );
}

function Models({ title, found }: { title: string; found: Tested }) {
  const models = Object.entries(found.models).filter(([name]) => name in MODELS);
  const compared = models.some(([, model]) => model.change);
  return (
    <DotTable
      caption={
        <>
          <strong>{title}</strong>, {found.tasks} tasks with at least {found.fewest_positives} positives
        </>
      }
      label="model"
      series={["AUROC"]}
      beside={["M3H is ahead by", ...(compared ? ["change"] : [])]}
      form={three}
      rows={models.map(([name, model]) => ({
        label: name === "m3h" ? <strong>{MODELS[name]}</strong> : MODELS[name],
        dots: [model.auroc],
        beside: [
          model.m3h_ahead_by ? <Figure form={plus} found={model.m3h_ahead_by} /> : "",
          ...(compared ? [model.change ? <Figure form={plus} found={model.change} /> : ""] : []),
        ],
      }))}
    />
  );
}

function ByTask({ known, measured, all }: { known: Known; measured: Tested | undefined; all: Tested | undefined }) {
  const given = [measured, all].map((found) => found?.models["m3h"]?.by_task ?? {});
  const dot = (area: number | Ranged | undefined): Ranged | null =>
    area === undefined ? null : typeof area === "number" ? [area, null, null] : area;
  const rows = known.tasks
    .map((task) => ({ task, dots: given.map((areas) => dot(areas[task.name])) }))
    .filter((row) => row.dots.some(Boolean))
    .sort((a, b) => (b.dots[1]?.[0] ?? b.dots[0]?.[0] ?? 0) - (a.dots[1]?.[0] ?? a.dots[0]?.[0] ?? 0));
  if (!rows.length) return null;
  const intervals = rows.some((row) => row.dots.some((dot) => dot?.[1] != null));
  return (
    <Panel title="How well, task by task">
      <DotTable
        caption={
          <>
            AUROC of M3H on hospitals never seen, at 24 h.
            {!intervals && " The report has no intervals by task: where few patients had it, a figure is uncertain."}
          </>
        }
        label="task"
        series={["measured", "all inputs"]}
        beside={["positives"]}
        form={three}
        rows={rows.map(({ task, dots }) => ({
          label: task.display,
          dots,
          beside: [(all ?? measured)?.positives?.[task.name] ?? ""],
        }))}
      />
    </Panel>
  );
}

function Calibration({ found }: { found: Acting }) {
  const sides = { "All inputs": found, Measured: found.measured };
  const told = Object.entries(sides).filter((side): side is [string, Acting] => side[1] !== undefined);
  const rows = (
    names: Record<string, string>,
    of: (side: Acting) => Record<string, number | null>,
    form: typeof three,
  ) =>
    Object.entries(names).map(([key, words]) => (
      <tr key={key}>
        <th scope="row">{words}</th>
        {told.map(([name, side]) => {
          const value = of(side)[key];
          return (
            <td key={name} class="number">
              {value == null ? NONE : form(value)}
            </td>
          );
        })}
      </tr>
    ));
  return (
    <Panel title="How far probabilities, sets and intervals can be trusted">
      <p>
        Hospitals never seen, at 24 h, the {found.tasks} commonest tasks pooled. Of a probability that is right, as many
        patients have the disease as it says: the dots lie on the line. These figures have no intervals in the report.
      </p>
      <div class="calibration">
        {told.map(([name, side]) => side.curve && <Curve key={name} title={name} found={side.curve} />)}
        <table class="figures">
          <thead>
            <tr>
              <td />
              {told.map(([name]) => (
                <th key={name} scope="col">
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows(CALIBRATION, (side) => side.calibration, three)}
            {rows(COVERAGE, (side) => side.coverage, share)}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}

const SIDE = 300;

/** Square-root axes: most patients have a low probability, and there the dots would lie on each other. */
function Curve({ title, found }: { title: string; found: { predicted: number[]; observed: number[] } }) {
  const x = scaleSqrt([0, 1], [0, SIDE]);
  const y = scaleSqrt([0, 1], [SIDE, 0]);
  const ticks = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1];
  const bins = found.predicted.map((predicted, i) => [predicted, found.observed[i] ?? 0] as const);
  return (
    <figure class="curve">
      <figcaption>{title}</figcaption>
      <svg
        viewBox={`-44 -8 ${SIDE + 60} ${SIDE + 50}`}
        role="img"
        aria-label={`Calibration curve, ${title}; its numbers are listed below it`}
      >
        {ticks.map((tick) => (
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
        <path class="line" d={`M${bins.map(([p, o]) => `${x(p)} ${y(o)}`).join("L")}`} />
        {bins.map(([p, o], i) => (
          <circle key={i} cx={x(p)} cy={y(o)} r="4" />
        ))}
        <text x={SIDE / 2} y={SIDE + 36} text-anchor="middle">
          predicted, %
        </text>
        <text transform={`translate(-34 ${SIDE / 2}) rotate(-90)`} text-anchor="middle">
          observed, %
        </text>
      </svg>
      <details>
        <summary>Its {bins.length} points</summary>
        <table>
          <thead>
            <tr>
              <th scope="col">predicted</th>
              <th scope="col">observed</th>
            </tr>
          </thead>
          <tbody>
            {bins.map(([p, o], i) => (
              <tr key={i}>
                <td class="number">{share(p)}</td>
                <td class="number">{share(o)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </figure>
  );
}

const FEW = <span class="quiet">too few to say</span>;
const OBSERVED = "observed / expected";

function Groups({ found }: { found: Record<string, Record<string, Tally>> }) {
  const rows = Object.entries(found).flatMap(([by, groups]) =>
    Object.entries(groups).map(([name, here]) => ({
      label: (
        <>
          <span class="quiet">{by}:</span> {name}
          {here.small && <span class="quiet"> (small)</span>}
          <Size of={here} />
        </>
      ),
      // Of a small group the figure is given, as in the report, where there is one.
      dots: [here.auroc ?? null],
      beside: [
        here.against_everyone ? <Figure form={plus} found={here.against_everyone} /> : "",
        here.observed_to_expected ? <Ratio found={here.observed_to_expected} /> : FEW,
      ],
    })),
  );
  return (
    <Panel title="By sex, age, ethnicity and year">
      <DotTable
        caption="All inputs, at 24 h. Descriptive: nothing was corrected for any group, and groups differ in their tasks; a small one has under 100 stays and tells little. Against everyone: on the group’s own tasks. Observed / expected above 1: the probabilities are too low."
        label="group"
        series={["AUROC"]}
        beside={["against everyone", OBSERVED]}
        form={three}
        rows={rows}
      />
    </Panel>
  );
}

function Landmarks({ found }: { found: NonNullable<Evaluation["landmarks"]> }) {
  const models = ["m3h", "logistic_regression", "lightgbm"].filter((model) =>
    Object.values(found).some((here) => here.models[model]),
  );
  const names: Record<string, string> = {
    m3h: "M3H",
    logistic_regression: "logistic regression",
    lightgbm: "LightGBM",
  };
  return (
    <Panel title="By hours since admission">
      <DotTable
        caption="All inputs; those who are still in the unit: a later row has other, sicker patients, so that the rows are no curve of one group. Observed / expected: of M3H."
        label="after admission"
        series={models.map((model) => names[model] ?? model)}
        beside={[OBSERVED]}
        form={three}
        rows={Object.entries(found).map(([hours, here]) => ({
          label: (
            <>
              {hours} h
              <Size of={here} />
            </>
          ),
          dots: models.map((model) => here.models[model] ?? null),
          beside: [here.observed_to_expected ? <Ratio found={here.observed_to_expected} /> : FEW],
        }))}
      />
    </Panel>
  );
}

function Size({ of }: { of: Tally }) {
  return (
    <div class="quiet small number">
      {of.stays.toLocaleString("en")} {of.stays === 1 ? "stay" : "stays"}, {of.tasks} tasks
    </div>
  );
}

/** Bold where the interval leaves out 1. */
function Ratio({ found }: { found: Ranged }): ComponentChildren {
  const words = <Figure form={two} found={found} />;
  return apart(found, 1) ? <strong>{words}</strong> : words;
}

function Recalibrated({ found }: { found: NonNullable<Evaluation["recalibration"]> }) {
  return (
    <>
      <h3>What a recalibration repairs there</h3>
      <p>
        By {found.patients} of its patients, drawn at random {found.splits} times; measured on the others, all inputs.
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
          {Object.entries(CALIBRATION).map(([key, words]) => (
            <tr key={key}>
              <th scope="row">{words}</th>
              {[found.before[key], found.after[key]].map((value, i) => (
                <td key={i} class="number">
                  {value ? ranged(three, value) : NONE}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
