// The layout of the task network: a force simulation, run to its end. The same edges give the same layout.
import { forceCenter, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "d3-force";
import type { MeasuredCell, TaskTitle } from "./tim_cells";

export const [WIDTH, HEIGHT] = [880, 760];
const ITERATIONS = 400;
const BOX_GAP = 18; // minimum gap between two boxes, which keeps arrows visible
const LINE_LENGTH = 20; // characters; a longer title is wrapped onto two lines

interface Point {
  x: number;
  y: number;
}

/** The box of a task. `x` and `y` are its centre. */
export interface GraphNode extends Point {
  name: string;
  lines: string[];
  width: number;
  height: number;
}

/** One box per task that has an edge, by the name of the task. */
export function layoutGraph(edges: MeasuredCell[], title: TaskTitle): Map<string, GraphNode> {
  const nodes = initialNodes(edges, title);
  simulateForces(nodes, edges);
  spread(nodes);
  const nodesByName = new Map(nodes.map((node) => [node.name, node]));
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    for (const { task, source } of edges) {
      const [from, to] = [nodesByName.get(task), nodesByName.get(source)];
      if (from && to) clearEdge(nodes, from, to);
    }
    separateBoxes(nodes);
  }
  return nodesByName;
}

/** Boxes in alphabetical order on an ellipse. */
function initialNodes(edges: MeasuredCell[], title: TaskTitle): GraphNode[] {
  const names = [...new Set(edges.flatMap((edge) => [edge.task, edge.source]))].sort();
  return names.map((name, i) => {
    const lines = wrapTitle(title(name));
    const angle = (2 * Math.PI * i) / names.length;
    return {
      name,
      lines,
      width: 7.5 * Math.max(...lines.map((line) => line.length)) + 18,
      height: 15 * lines.length + 10,
      x: WIDTH * (0.5 + 0.4 * Math.cos(angle)),
      y: HEIGHT * (0.5 + 0.4 * Math.sin(angle)),
    };
  });
}

function simulateForces(nodes: GraphNode[], edges: MeasuredCell[]) {
  const links = edges.map((edge) => ({ source: edge.task, target: edge.source }));
  forceSimulation(nodes)
    .force(
      "link",
      forceLink<GraphNode, (typeof links)[number]>(links)
        .id((node) => node.name)
        .distance(150)
        .strength(0.12),
    )
    .force("repel", forceManyBody().strength(-900))
    .force("middle", forceCenter(WIDTH / 2, HEIGHT / 2))
    .force("x", forceX<GraphNode>(WIDTH / 2).strength(0.08))
    .force("y", forceY<GraphNode>(HEIGHT / 2).strength(0.14))
    .stop()
    .tick(ITERATIONS);
}

/** Spreads the boxes over the whole picture. Ranks weigh more than distances, so dense areas open up. */
function spread(nodes: GraphNode[]) {
  for (const [axis, extent] of [
    ["x", WIDTH],
    ["y", HEIGHT],
  ] as const) {
    const sorted = nodes.toSorted((a, b) => a[axis] - b[axis]);
    const [low, high] = [sorted[0]?.[axis] ?? 0, sorted.at(-1)?.[axis] ?? 0];
    const positions = sorted.map((node, rank) => {
      const position = (node[axis] - low) / (high - low || 1);
      return 0.06 + 0.88 * (0.4 * position + 0.6 * (rank / (sorted.length - 1 || 1)));
    });
    sorted.forEach((node, rank) => {
      node[axis] = extent * (positions[rank] ?? 0.5);
    });
  }
}

/** Moves other boxes away from the arrow between two boxes. */
function clearEdge(nodes: GraphNode[], from: GraphNode, to: GraphNode) {
  const control = controlPoint(from, to);
  for (const t of [0.2, 0.35, 0.5, 0.65, 0.8]) {
    const at = (axis: "x" | "y") => (1 - t) ** 2 * from[axis] + 2 * t * (1 - t) * control[axis] + t ** 2 * to[axis];
    const [x, y] = [at("x"), at("y")];
    for (const node of nodes) {
      if (node === from || node === to) continue;
      const [dx, dy] = [node.x - x, node.y - y];
      if (Math.abs(dx) > node.width / 2 + 6 || Math.abs(dy) > node.height / 2 + 6) continue;
      const distance = Math.hypot(dx, dy) || 1;
      node.x += (2 * dx) / distance;
      node.y += (2 * dy) / distance;
    }
  }
}

/** The control point of an arrow (a quadratic Bézier curve). Its bend separates A → B from B → A. */
export function controlPoint(from: Point, to: Point): Point {
  return { x: (from.x + to.x) / 2 - 0.14 * (to.y - from.y), y: (from.y + to.y) / 2 + 0.14 * (to.x - from.x) };
}

/** Moves overlapping boxes apart along the axis of the smaller overlap, and keeps all boxes inside the picture. */
function separateBoxes(nodes: GraphNode[]) {
  for (const [i, a] of nodes.entries()) {
    for (const b of nodes.slice(i + 1)) {
      const x = (a.width + b.width) / 2 + BOX_GAP - Math.abs(b.x - a.x);
      const y = (a.height + b.height) / 2 + BOX_GAP - Math.abs(b.y - a.y);
      if (x <= 0 || y <= 0) continue;
      const [axis, overlap] = x < y ? (["x", x] as const) : (["y", y] as const);
      const shift = (b[axis] >= a[axis] ? overlap : -overlap) / 2;
      a[axis] -= shift;
      b[axis] += shift;
    }
  }
  for (const node of nodes) {
    node.x = Math.max(node.width / 2 + 2, Math.min(WIDTH - node.width / 2 - 2, node.x));
    node.y = Math.max(node.height / 2 + 2, Math.min(HEIGHT - node.height / 2 - 2, node.y));
  }
}

/** One line, or the two lines whose longer line is shortest. */
function wrapTitle(title: string): string[] {
  if (title.length <= LINE_LENGTH) return [title];
  const words = title.split(" ");
  const candidates = words.slice(1).map((_, i) => [words.slice(0, i + 1).join(" "), words.slice(i + 1).join(" ")]);
  const longest = (lines: string[]) => Math.max(...lines.map((line) => line.length));
  return candidates.sort((a, b) => longest(a) - longest(b))[0] ?? [title];
}

/** The point where the line from the centre of a box to `target` crosses the border of the box. */
export function borderPoint(node: GraphNode, target: Point): Point {
  const [dx, dy] = [target.x - node.x, target.y - node.y];
  const t = Math.min((node.width / 2 + 1) / Math.abs(dx), (node.height / 2 + 1) / Math.abs(dy), 1);
  return { x: node.x + t * dx, y: node.y + t * dy };
}
