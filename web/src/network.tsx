import { useMemo, useState } from "preact/hooks";
import { type Known, Panel } from "./app";
import { cells, effect, measured, type Measured, type Titles, titles } from "./cells";
import { ranged } from "./charts";
import { bend, border, HEIGHT, lay, type Node, WIDTH } from "./layout";
import { decimal } from "./numbers";
import { certainty, NoTim } from "./tim";
import "./network.css";

const TITLE = "Network";
const EVERY = "";

/** The cells of TIM that are certain, as arrows from the task that helps to the task that is helped. */
export function Network({ known }: { known: Known }) {
  if (!known.tim) return <NoTim title={TITLE} />;
  const pairs = cells(known.tim).filter(measured);
  const edges = pairs.filter((cell) => cell.certain);
  return (
    <div class="network">
      <h1>{TITLE}</h1>
      {edges.length > 0 ? (
        <Drawn known={known} edges={edges} />
      ) : (
        <Panel title="No arrow to draw">
          <p>
            An arrow is a cell of the matrix that is certain. {certainty(0, pairs.length, known.tim.patients)}. An arrow
            drawn here would be one of {pairs.length.toLocaleString("en")} pairs picked by chance.
          </p>
          <p>
            <a href="#tim">The whole matrix, with its intervals</a>
          </p>
        </Panel>
      )}
    </div>
  );
}

function Drawn({ known, edges }: { known: Known; edges: Measured[] }) {
  const title = useMemo(() => titles(known.tasks), [known]);
  const [department, only] = useState(EVERY);
  const [least, ask] = useState(0);
  // All edges are laid out once, so that a task stays in its place while others are filtered out.
  const nodes = useMemo(() => lay(edges, title), [known]);
  const departments = new Map(known.tasks.map((task) => [task.name, task.department]));
  const choices = [...new Set([...nodes.keys()].map((name) => departments.get(name) ?? "Other"))];
  const largest = Math.max(...edges.map(size));
  const here = (name: string) => department === EVERY || departments.get(name) === department;
  const shown = edges
    .filter((edge) => (here(edge.source) || here(edge.task)) && size(edge) >= least)
    .sort((a, b) => size(b) - size(a));
  return (
    <>
      <Panel title={`${shown.length} of ${edges.length} certain cells`}>
        <div class="row filters">
          <label>
            Department{" "}
            <select value={department} onChange={(event) => only(event.currentTarget.value)}>
              <option value={EVERY}>all</option>
              {choices.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <label class="row">
            At least
            <input
              type="range"
              min={0}
              max={Math.floor(largest * 1000) / 1000}
              step={0.001}
              value={least}
              aria-valuetext={`effect of ${decimal(least, 3)} or more`}
              onInput={(event) => ask(event.currentTarget.valueAsNumber)}
            />
            <output class="number">± {decimal(least, 3)}</output>
          </label>
          <span class="row quiet small">
            <Sample kind="more" /> helps
            <Sample kind="less" /> harms; the wider, the more
          </span>
        </div>
        {shown.length ? (
          <Graph edges={shown} nodes={nodes} largest={largest} title={title} />
        ) : (
          <p role="status">No certain cell is left by these filters.</p>
        )}
      </Panel>
      {shown.length > 0 && (
        <Panel title="The same as a table">
          <table class="edges">
            <thead>
              <tr>
                <th scope="col">learning</th>
                <th scope="col">brings</th>
                <th scope="col">effect, 95 % interval</th>
                <th scope="col">in</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((edge) => (
                <tr key={`${edge.task} ${edge.source}`}>
                  <td>
                    <a href={`#tim/${edge.task}`}>{title(edge.task)}</a>
                  </td>
                  <td>
                    <a href={`#tim/${edge.source}`}>{title(edge.source)}</a>
                  </td>
                  <td class="number">{ranged(effect, edge.effect)}</td>
                  <td>{edge.metric}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Panel>
      )}
    </>
  );
}

const size = (edge: Measured) => Math.abs(edge.effect[0]);
const kindOf = (edge: Measured) => (edge.effect[0] > 0 ? "more" : "less");

interface GraphProps {
  edges: Measured[];
  nodes: Map<string, Node>;
  largest: number;
  title: Titles;
}

function Graph({ edges, nodes, largest, title }: GraphProps) {
  const there = new Set(edges.flatMap((edge) => [edge.source, edge.task]));
  const boxes = [...nodes.values()].filter((node) => there.has(node.name));
  return (
    <svg
      class="graph"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      role="img"
      aria-label={`${edges.length} arrows between ${boxes.length} tasks; the table below says the same.`}
    >
      <defs>
        {(["more", "less"] as const).map((kind) => (
          <marker
            key={kind}
            id={`tip-${kind}`}
            class={kind}
            viewBox="0 0 10 10"
            refX="9"
            refY="5"
            markerWidth="9"
            markerHeight="9"
            markerUnits="userSpaceOnUse"
            orient="auto"
          >
            <path d="M0 0 10 5 0 10z" />
          </marker>
        ))}
      </defs>
      {edges.toReversed().map((edge) => {
        const kind = kindOf(edge);
        return (
          <path
            key={`${edge.task} ${edge.source}`}
            class={`edge ${kind}`}
            d={curve(nodes.get(edge.task)!, nodes.get(edge.source)!)}
            stroke-width={1 + (4 * size(edge)) / largest}
            marker-end={`url(#tip-${kind})`}
          >
            <title>{`${title(edge.task)} → ${title(edge.source)}: ${ranged(effect, edge.effect)} ${edge.metric}`}</title>
          </path>
        );
      })}
      {boxes.map((node) => (
        <g key={node.name} class="node">
          <rect
            x={node.x - node.width / 2}
            y={node.y - node.height / 2}
            width={node.width}
            height={node.height}
            rx="6"
          />
          {node.lines.map((line, i) => (
            <text
              key={i}
              x={node.x}
              y={node.y + (i - (node.lines.length - 1) / 2) * 15}
              dy="0.35em"
              text-anchor="middle"
            >
              {line}
            </text>
          ))}
        </g>
      ))}
    </svg>
  );
}

function curve(from: Node, to: Node): string {
  const middle = bend(from, to);
  const [start, end] = [border(from, middle), border(to, middle)];
  return `M${rounded(start)}Q${rounded(middle)} ${rounded(end)}`;
}

const rounded = ({ x, y }: { x: number; y: number }) => `${x.toFixed(1)} ${y.toFixed(1)}`;

function Sample({ kind }: { kind: "more" | "less" }) {
  return (
    <svg class="sample" viewBox="0 0 40 10" aria-hidden="true">
      <path class={`edge ${kind}`} d="M0 5H38" stroke-width="3" />
    </svg>
  );
}
