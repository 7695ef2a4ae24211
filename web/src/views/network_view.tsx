import { useMemo, useState } from "preact/hooks";
import { Panel } from "../components/panel";
import { ArrowSample, edgeSize, NetworkGraph } from "../components/tim/network_graph";
import { NoTim } from "../components/tim/no_tim";
import type { Known } from "../lib/api";
import { formatEstimate } from "../lib/estimates";
import { layoutGraph } from "../lib/graph_layout";
import { count, decimal } from "../lib/numbers";
import { VIEWS } from "../lib/route";
import {
  certaintyHeadline,
  formatEffect,
  isMeasured,
  type MeasuredCell,
  type TaskTitle,
  taskTitles,
  timCells,
} from "../lib/tim_cells";
import "./network_view.css";

/** The certain cells of the task interaction matrix as a graph. */
export function NetworkView({ known }: { known: Known }) {
  if (!known.tim) return <NoTim title={VIEWS.network} />;
  const pairs = timCells(known.tim).filter(isMeasured);
  const edges = pairs.filter((cell) => cell.certain);
  return (
    <div class="network">
      <h1>{VIEWS.network}</h1>
      {edges.length > 0 ? (
        <FilteredNetwork known={known} edges={edges} />
      ) : (
        <Panel title="No arrow to draw">
          <p>
            The network draws the certain cells of the matrix as arrows.{" "}
            {certaintyHeadline(0, pairs.length, known.tim.patients)}. An arrow here would be a random choice among{" "}
            {count(pairs.length)} pairs.
          </p>
          <p>
            <a href="#tim">Show the whole matrix with its intervals</a>
          </p>
        </Panel>
      )}
    </div>
  );
}

const ALL_DEPARTMENTS = "";

interface Filter {
  department: string;
  /** The smallest effect that is drawn. */
  minimum: number;
}

function FilteredNetwork({ known, edges }: { known: Known; edges: MeasuredCell[] }) {
  const title = useMemo(() => taskTitles(known.tasks), [known]);
  const [filter, setFilter] = useState<Filter>({ department: ALL_DEPARTMENTS, minimum: 0 });
  // The layout covers all edges, so boxes keep their positions when a filter changes.
  const nodes = useMemo(() => layoutGraph(edges, title), [known]);
  const departments = new Map(known.tasks.map((task) => [task.name, task.department]));
  const choices = [...new Set([...nodes.keys()].map((name) => departments.get(name) ?? "Other"))];
  const largest = Math.max(...edges.map(edgeSize));
  const selected = (name: string) =>
    filter.department === ALL_DEPARTMENTS || departments.get(name) === filter.department;
  const shown = edges
    .filter((edge) => (selected(edge.source) || selected(edge.task)) && edgeSize(edge) >= filter.minimum)
    .sort((a, b) => edgeSize(b) - edgeSize(a));
  return (
    <>
      <Panel title={`${shown.length} of ${edges.length} certain cells`}>
        <Filters filter={filter} setFilter={setFilter} departments={choices} largest={largest} />
        {shown.length ? (
          <NetworkGraph edges={shown} nodes={nodes} largest={largest} title={title} />
        ) : (
          <p role="status">No certain cell matches these filters.</p>
        )}
      </Panel>
      {shown.length > 0 && (
        <Panel title="The arrows as a table">
          <EdgeTable edges={shown} title={title} />
        </Panel>
      )}
    </>
  );
}

interface FiltersProps {
  filter: Filter;
  setFilter: (filter: Filter) => void;
  departments: string[];
  largest: number;
}

function Filters({ filter, setFilter, departments, largest }: FiltersProps) {
  const { department, minimum } = filter;
  return (
    <div class="row filters">
      <label>
        Department{" "}
        <select
          value={department}
          onChange={(event) => setFilter({ ...filter, department: event.currentTarget.value })}
        >
          <option value={ALL_DEPARTMENTS}>all</option>
          {departments.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <label class="row">
        Smallest effect
        <input
          type="range"
          min={0}
          max={Math.floor(largest * 1000) / 1000}
          step={0.001}
          value={minimum}
          aria-valuetext={`effect of ${decimal(minimum, 3)} or more`}
          onInput={(event) => setFilter({ ...filter, minimum: event.currentTarget.valueAsNumber })}
        />
        <output class="number">± {decimal(minimum, 3)}</output>
      </label>
      <span class="row muted small">
        <ArrowSample kind="more" /> helps
        <ArrowSample kind="less" /> harms; a wider arrow is a larger effect
      </span>
    </div>
  );
}

function EdgeTable({ edges, title }: { edges: MeasuredCell[]; title: TaskTitle }) {
  return (
    <table class="edges">
      <thead>
        <tr>
          <th scope="col">learned task</th>
          <th scope="col">changed task</th>
          <th scope="col">effect, 95 % interval</th>
          <th scope="col">metric</th>
        </tr>
      </thead>
      <tbody>
        {edges.map((edge) => (
          <tr key={`${edge.task} ${edge.source}`}>
            <td>
              <a href={`#tim/${edge.task}`}>{title(edge.task)}</a>
            </td>
            <td>
              <a href={`#tim/${edge.source}`}>{title(edge.source)}</a>
            </td>
            <td class="number">{formatEstimate(formatEffect, edge.effect)}</td>
            <td>{edge.metric}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
