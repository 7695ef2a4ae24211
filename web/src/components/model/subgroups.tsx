import { type Estimate, excludes } from "../../lib/estimates";
import {
  type LandmarkResults,
  OBSERVED_TO_EXPECTED,
  type SubgroupResults,
  signedThreeDecimals,
  threeDecimals,
  twoDecimals,
} from "../../lib/evaluation";
import { count } from "../../lib/numbers";
import { DotTable } from "../dot_table";
import { EstimateFigure } from "../estimate_figure";
import { Panel } from "../panel";

const SUBGROUP_CAPTION =
  "All inputs, at 24 h. The numbers are descriptive: no correction was made for any group, and groups differ in their " +
  "tasks. A group is small below 100 stays, and its numbers are then uncertain. Against everyone: the difference from " +
  "all patients on the group’s own tasks. Observed / expected above 1: the probabilities are too low.";

/** Discrimination and calibration by sex, age, ethnicity and year. */
export function Subgroups({ results }: { results: Record<string, Record<string, SubgroupResults>> }) {
  const rows = Object.entries(results).flatMap(([attribute, groups]) =>
    Object.entries(groups).map(([name, group]) => ({
      label: (
        <>
          <span class="muted">{attribute}:</span> {name}
          {group.small && <span class="muted"> (small)</span>}
          <GroupSize group={group} />
        </>
      ),
      // The report gives the AUROC of small groups too.
      dots: [group.auroc ?? null],
      extraCells: [
        group.against_everyone ? <EstimateFigure format={signedThreeDecimals} estimate={group.against_everyone} /> : "",
        <ObservedToExpected key="ratio" ratio={group.observed_to_expected} />,
      ],
    })),
  );
  return (
    <Panel title="By sex, age, ethnicity and year">
      <DotTable
        caption={SUBGROUP_CAPTION}
        label="group"
        series={["AUROC"]}
        extraHeadings={["against everyone", OBSERVED_TO_EXPECTED]}
        format={threeDecimals}
        rows={rows}
      />
    </Panel>
  );
}

const LANDMARK_MODELS: Record<string, string> = {
  m3h: "M3H",
  logistic_regression: "logistic regression",
  lightgbm_bag: "bagged LightGBM",
  lightgbm: "LightGBM",
  single_task: "same network, each task alone",
};

/** Discrimination by hours since admission. */
export function Landmarks({ results }: { results: Record<string, LandmarkResults> }) {
  const models = Object.keys(LANDMARK_MODELS).filter((model) =>
    Object.values(results).some((landmark) => landmark.models[model]),
  );
  return (
    <Panel title="By hours since admission">
      <DotTable
        caption="All inputs; patients who are still in the unit. Later rows contain fewer and sicker patients, so the rows do not follow one group over time. Observed / expected is that of M3H."
        label="after admission"
        series={models.map((model) => LANDMARK_MODELS[model] ?? model)}
        extraHeadings={[OBSERVED_TO_EXPECTED]}
        format={threeDecimals}
        rows={Object.entries(results).map(([hours, landmark]) => ({
          label: (
            <>
              {hours} h
              <GroupSize group={landmark} />
            </>
          ),
          dots: models.map((model) => landmark.models[model] ?? null),
          extraCells: [<ObservedToExpected key="ratio" ratio={landmark.observed_to_expected} />],
        }))}
      />
    </Panel>
  );
}

function GroupSize({ group }: { group: SubgroupResults }) {
  return (
    <div class="muted small number">
      {count(group.stays)} {group.stays === 1 ? "stay" : "stays"}, {group.tasks} tasks
    </div>
  );
}

/** The ratio of observed to expected cases; bold if its interval excludes 1. */
function ObservedToExpected({ ratio }: { ratio: Estimate | undefined }) {
  if (!ratio) return <span class="muted">too few patients</span>;
  const figure = <EstimateFigure format={twoDecimals} estimate={ratio} />;
  return excludes(ratio, 1) ? <strong>{figure}</strong> : figure;
}
