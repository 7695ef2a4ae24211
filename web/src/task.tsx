import { useState } from "preact/hooks";
import type { Tim } from "./api";
import { type Known, Panel } from "./app";
import { type Cell, cells, effect, measured, type Measured, titles } from "./cells";
import { apart, DotTable, ranged } from "./charts";
import { share } from "./numbers";

const FIRST = 10;

/** One row and one column of TIM: what helps a task, and what it helps. */
export function TaskPage({ known, tim, name }: { known: Known; tim: Tim; name: string }) {
  const title = titles(known.tasks);
  const row = tim.sources.indexOf(name);
  if (row < 0) {
    return (
      <>
        <h1>No such task</h1>
        <p>
          The matrix has no task of this name. <a href="#tim">To the whole matrix</a>
        </p>
      </>
    );
  }
  const task = known.tasks.find((entry) => entry.name === name);
  const gain = tim.multitask_gain[row];
  const all = cells(tim);
  const own = all.find((cell) => cell.source === name && cell.task === name)?.attention;
  const [previous, next] = [tim.sources[row - 1], tim.sources[row + 1]];
  return (
    <div class="tim">
      <nav class="row steps" aria-label="Tasks">
        <a href="#tim">The whole matrix</a>
        <span class="row">
          {previous && (
            <a href={`#tim/${previous}`} rel="prev">
              ← {title(previous)}
            </a>
          )}
          {next && (
            <a href={`#tim/${next}`} rel="next">
              {title(next)} →
            </a>
          )}
        </span>
      </nav>
      <h1>{title(name)}</h1>
      <p class="quiet">
        {task?.department}. {task?.means}
      </p>
      <Panel title="What learning all tasks together brings it">
        {gain == null ? (
          <p>Not measured.</p>
        ) : (
          <p>
            <strong class="number">
              {ranged(effect, [gain, tim.gain_lower[row], tim.gain_upper[row]])} {tim.metric[row]}
            </strong>{" "}
            over learning it alone, one network each;{" "}
            {apart([gain, tim.gain_lower[row], tim.gain_upper[row]], 0)
              ? "the 95 % interval leaves out zero."
              : "the 95 % interval holds zero."}
          </p>
        )}
        {own != null && (
          <p>
            In the model that is served it pays {share(own)} of its attention to itself. Attention says what is read,
            not what helped to learn.
          </p>
        )}
      </Panel>
      <div class="pair">
        <Side
          title="What helps it"
          other={(cell) => cell.task}
          head="learning"
          attention="attention it pays"
          found={all.filter((cell) => cell.source === name).filter(measured)}
          label={(cell) => title(cell.task)}
        />
        <Side
          title="What it helps"
          other={(cell) => cell.source}
          head="brings"
          attention="attention paid to it"
          found={all.filter((cell) => cell.task === name).filter(measured)}
          label={(cell) => title(cell.source)}
        />
      </div>
    </div>
  );
}

interface SideProps {
  title: string;
  /** The other task of the pair. */
  other: (cell: Cell) => string;
  label: (cell: Cell) => string;
  head: string;
  attention: string;
  found: Measured[];
}

function Side({ title, other, label, head, attention, found }: SideProps) {
  const [whole, open] = useState(false);
  if (!found.length) {
    return (
      <Panel title={title}>
        <p>Not measured.</p>
      </Panel>
    );
  }
  const largest = found.toSorted((a, b) => Math.abs(b.effect[0]) - Math.abs(a.effect[0]));
  const shown = (whole ? largest : largest.slice(0, FIRST)).toSorted((a, b) => b.effect[0] - a.effect[0]);
  const certain = shown.some((cell) => cell.certain);
  return (
    <Panel title={title}>
      <DotTable
        caption={
          <>
            {whole ? "All" : `The ${shown.length} largest of ${found.length}`}, with 95 % intervals; a ring: its
            interval holds zero. {!certain && "None of them is certain."}
          </>
        }
        label={head}
        series={["effect"]}
        beside={[attention]}
        form={effect}
        reference={0}
        rows={shown.map((cell) => ({
          label: (
            <>
              <a href={`#tim/${other(cell)}`}>{label(cell)}</a>
              {cell.metric !== "AUROC" && <span class="quiet small"> in {cell.metric}</span>}
              {cell.certain && <strong> certain</strong>}
            </>
          ),
          dots: [cell.effect],
          beside: [cell.attention === null ? "" : share(cell.attention)],
        }))}
      />
      {found.length > FIRST && (
        <p class="all">
          <button type="button" aria-expanded={whole} onClick={() => open(!whole)}>
            {whole ? `The ${FIRST} largest` : `All ${found.length}`}
          </button>
        </p>
      )}
    </Panel>
  );
}
