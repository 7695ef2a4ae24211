import type { Known } from "../../lib/api";
import type { Estimate } from "../../lib/estimates";
import { type RankingResults, signedThreeDecimals, threeDecimals } from "../../lib/evaluation";
import { DotTable } from "../dot_table";
import { EstimateFigure } from "../estimate_figure";
import { Panel } from "../panel";

const MODEL_LABELS: Record<string, string> = {
  m3h: "M3H",
  m3h_one: "M3H, one network",
  single_task: "same network, each task alone",
  single_task_one: "same network, each task alone, one network",
  shared_trunk: "shared trunk, no attention",
  shared_trunk_one: "shared trunk, no attention, one network",
  lightgbm_bag: "bagged LightGBM, each task alone",
  lightgbm: "LightGBM, each task alone",
  logistic_regression: "logistic regression, each task alone",
};

/** The mean AUROC of M3H and of the models it is compared with. */
export function ModelRanking({ title, results }: { title: string; results: RankingResults }) {
  const models = Object.entries(results.models).filter(([name]) => name in MODEL_LABELS);
  const hasChange = models.some(([, model]) => model.change);
  const compared = models.some(([, model]) => model.one_network_ahead_by);
  const difference = (estimate: Estimate | undefined) =>
    estimate ? <EstimateFigure format={signedThreeDecimals} estimate={estimate} /> : "";
  return (
    <DotTable
      caption={
        <>
          <strong>{title}</strong>, {results.tasks} tasks with at least {results.fewest_positives} positives
          {compared && ". Ensembles are compared with M3H, single models with one of its networks."}
        </>
      }
      label="model"
      series={["AUROC"]}
      extraHeadings={["M3H is ahead by", ...(hasChange ? ["change"] : [])]}
      format={threeDecimals}
      rows={models.map(([name, model]) => ({
        label: name === "m3h" ? <strong>{MODEL_LABELS[name]}</strong> : MODEL_LABELS[name],
        dots: [model.auroc],
        extraCells: [
          difference(model.m3h_ahead_by ?? model.one_network_ahead_by),
          ...(hasChange ? [difference(model.change)] : []),
        ],
      }))}
    />
  );
}

interface TaskRankingProps {
  known: Known;
  measured: RankingResults | undefined;
  all: RankingResults | undefined;
}

/** The AUROC of M3H for each task. */
export function TaskRanking({ known, measured, all }: TaskRankingProps) {
  const areas = [measured, all].map((results) => results?.models.m3h?.by_task ?? {});
  const sortKey = (dots: (Estimate | null)[]) => dots[1]?.[0] ?? dots[0]?.[0] ?? 0;
  const rows = known.tasks
    .map((task) => ({ task, dots: areas.map((byTask) => toEstimate(byTask[task.name])) }))
    .filter((row) => row.dots.some(Boolean))
    .sort((a, b) => sortKey(b.dots) - sortKey(a.dots));
  if (!rows.length) return null;
  const hasIntervals = rows.some((row) => row.dots.some((dot) => dot?.[1] != null));
  return (
    <Panel title="Discrimination of each task">
      <DotTable
        caption={
          <>
            AUROC of M3H on held-out hospitals, at 24 h.
            {!hasIntervals && " The report has no intervals by task. With few positives a number is uncertain."}
          </>
        }
        label="task"
        series={["measured", "all inputs"]}
        extraHeadings={["positives"]}
        format={threeDecimals}
        rows={rows.map(({ task, dots }) => ({
          label: task.display,
          dots,
          extraCells: [(all ?? measured)?.positives?.[task.name] ?? ""],
        }))}
      />
    </Panel>
  );
}

function toEstimate(area: number | Estimate | undefined): Estimate | null {
  if (area === undefined) return null;
  return typeof area === "number" ? [area, null, null] : area;
}
