import { useState } from "preact/hooks";
import { share } from "../../lib/numbers";
import { formatEffect, type MeasuredCell, type TaskTitle } from "../../lib/tim_cells";
import { DotTable } from "../dot_table";
import { Panel } from "../panel";

const SHOWN_CELLS = 10;

interface EffectPanelProps {
  title: string;
  cells: MeasuredCell[];
  /** The task of the pair that a row names. */
  otherTask: (cell: MeasuredCell) => string;
  taskTitle: TaskTitle;
  taskHeading: string;
  attentionHeading: string;
}

/** The effects of one row or one column of the matrix. At first only the largest are shown. */
export function EffectPanel(props: EffectPanelProps) {
  const { title, cells } = props;
  const [showAll, setShowAll] = useState(false);
  if (!cells.length) {
    return (
      <Panel title={title}>
        <p>Not measured.</p>
      </Panel>
    );
  }
  const largest = cells.toSorted((a, b) => Math.abs(b.effect[0]) - Math.abs(a.effect[0]));
  const shown = (showAll ? largest : largest.slice(0, SHOWN_CELLS)).toSorted((a, b) => b.effect[0] - a.effect[0]);
  const certain = shown.some((cell) => cell.certain);
  return (
    <Panel title={title}>
      <DotTable
        caption={
          <>
            {showAll ? "All effects" : `The ${shown.length} largest of ${cells.length} effects`}, with 95 % intervals. A
            ring means that the interval includes 0. {!certain && "No effect shown is certain."}
          </>
        }
        label={props.taskHeading}
        series={["effect"]}
        extraHeadings={[props.attentionHeading]}
        format={formatEffect}
        reference={0}
        rows={shown.map((cell) => ({
          label: <EffectLabel cell={cell} task={props.otherTask(cell)} taskTitle={props.taskTitle} />,
          dots: [cell.effect],
          extraCells: [cell.attention === null ? "" : share(cell.attention)],
        }))}
      />
      {cells.length > SHOWN_CELLS && (
        <p class="show-all">
          <button type="button" aria-expanded={showAll} onClick={() => setShowAll(!showAll)}>
            {showAll ? `Show the ${SHOWN_CELLS} largest` : `Show all ${cells.length}`}
          </button>
        </p>
      )}
    </Panel>
  );
}

interface EffectLabelProps {
  cell: MeasuredCell;
  task: string;
  taskTitle: TaskTitle;
}

function EffectLabel({ cell, task, taskTitle }: EffectLabelProps) {
  return (
    <>
      <a href={`#tim/${task}`}>{taskTitle(task)}</a>
      {cell.metric !== "AUROC" && <span class="muted small"> in {cell.metric}</span>}
      {cell.certain && <strong> certain</strong>}
    </>
  );
}
