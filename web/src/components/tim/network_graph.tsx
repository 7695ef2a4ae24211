import { formatEstimate } from "../../lib/estimates";
import { borderPoint, controlPoint, type GraphNode, HEIGHT, WIDTH } from "../../lib/graph_layout";
import { formatEffect, type MeasuredCell, type TaskTitle } from "../../lib/tim_cells";

interface NetworkGraphProps {
  edges: MeasuredCell[];
  /** All boxes by task; the graph draws those that have an edge. */
  nodes: Map<string, GraphNode>;
  /** The largest effect, which has the widest arrow. */
  largest: number;
  title: TaskTitle;
}

export type EdgeKind = "more" | "less";
const KINDS: EdgeKind[] = ["more", "less"];

export const edgeSize = (edge: MeasuredCell) => Math.abs(edge.effect[0]);
const edgeKind = (edge: MeasuredCell): EdgeKind => (edge.effect[0] > 0 ? "more" : "less");

/** Arrows from the task that was learned to the task whose performance changes. */
export function NetworkGraph({ edges, nodes, largest, title }: NetworkGraphProps) {
  const connected = new Set(edges.flatMap((edge) => [edge.source, edge.task]));
  const boxes = [...nodes.values()].filter((node) => connected.has(node.name));
  return (
    <svg
      class="graph"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      role="img"
      aria-label={`${edges.length} arrows between ${boxes.length} tasks. The table below lists them.`}
    >
      <defs>
        {KINDS.map((kind) => (
          <ArrowTip key={kind} kind={kind} />
        ))}
      </defs>
      {edges.toReversed().map((edge) => {
        const [from, to] = [nodes.get(edge.task), nodes.get(edge.source)];
        if (!from || !to) return null;
        const kind = edgeKind(edge);
        return (
          <path
            key={`${edge.task} ${edge.source}`}
            class={`edge ${kind}`}
            d={arrowPath(from, to)}
            stroke-width={1 + (4 * edgeSize(edge)) / largest}
            marker-end={`url(#tip-${kind})`}
          >
            <title>{`${title(edge.task)} → ${title(edge.source)}: ${formatEstimate(formatEffect, edge.effect)} ${edge.metric}`}</title>
          </path>
        );
      })}
      {boxes.map((node) => (
        <TaskBox key={node.name} node={node} />
      ))}
    </svg>
  );
}

function ArrowTip({ kind }: { kind: EdgeKind }) {
  return (
    <marker
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
  );
}

function TaskBox({ node }: { node: GraphNode }) {
  return (
    <g class="node">
      <rect x={node.x - node.width / 2} y={node.y - node.height / 2} width={node.width} height={node.height} rx="6" />
      {node.lines.map((line, i) => (
        <text key={i} x={node.x} y={node.y + (i - (node.lines.length - 1) / 2) * 15} dy="0.35em" text-anchor="middle">
          {line}
        </text>
      ))}
    </g>
  );
}

function arrowPath(from: GraphNode, to: GraphNode): string {
  const control = controlPoint(from, to);
  const [start, end] = [borderPoint(from, control), borderPoint(to, control)];
  return `M${coordinates(start)}Q${coordinates(control)} ${coordinates(end)}`;
}

const coordinates = ({ x, y }: { x: number; y: number }) => `${x.toFixed(1)} ${y.toFixed(1)}`;

/** An example arrow for the legend. */
export function ArrowSample({ kind }: { kind: EdgeKind }) {
  return (
    <svg class="sample" viewBox="0 0 40 10" aria-hidden="true">
      <path class={`edge ${kind}`} d="M0 5H38" stroke-width="3" />
    </svg>
  );
}
