// Where the tasks of the network stand. It is computed to the end at once, and comes out the same each time.
import { forceCenter, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "d3-force";
import type { Measured, Titles } from "./cells";

export const [WIDTH, HEIGHT] = [880, 760];
const STEPS = 400;
const APART = 18; // between the boxes of two tasks, where arrows have to be seen
const LINE = 20; // letters; longer titles are broken in two

interface Point {
  x: number;
  y: number;
}

export interface Node extends Point {
  name: string;
  lines: string[];
  width: number;
  height: number;
}

export function lay(edges: Measured[], title: Titles): Map<string, Node> {
  const names = [...new Set(edges.flatMap((edge) => [edge.task, edge.source]))].sort();
  const nodes = names.map((name, i): Node => {
    const lines = broken(title(name));
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
  const links = edges.map((edge) => ({ source: edge.task, target: edge.source }));
  forceSimulation(nodes)
    .force(
      "link",
      forceLink<Node, (typeof links)[number]>(links)
        .id((node) => node.name)
        .distance(150)
        .strength(0.12),
    )
    .force("repel", forceManyBody().strength(-900))
    .force("middle", forceCenter(WIDTH / 2, HEIGHT / 2))
    .force("x", forceX<Node>(WIDTH / 2).strength(0.08))
    .force("y", forceY<Node>(HEIGHT / 2).strength(0.14))
    .stop()
    .tick(STEPS);
  fit(nodes);
  const placed = new Map(nodes.map((node) => [node.name, node]));
  for (let step = 0; step < STEPS; step++) {
    for (const { task, source } of edges) clear(nodes, placed.get(task)!, placed.get(source)!);
    separate(nodes);
  }
  return placed;
}

/** Spreads the tasks over the whole picture, and those that stand close together more than those at its edge. */
function fit(nodes: Node[]) {
  for (const [axis, extent] of [
    ["x", WIDTH],
    ["y", HEIGHT],
  ] as const) {
    const sorted = nodes.toSorted((a, b) => a[axis] - b[axis]);
    const [low, high] = [sorted[0]?.[axis] ?? 0, sorted.at(-1)?.[axis] ?? 0];
    const places = sorted.map((node, rank) => {
      const place = (node[axis] - low) / (high - low || 1);
      return 0.06 + 0.88 * (0.4 * place + 0.6 * (rank / (sorted.length - 1 || 1)));
    });
    sorted.forEach((node, rank) => (node[axis] = extent * (places[rank] ?? 0.5)));
  }
}

/** Moves boxes out of the way of an arrow that is not theirs. */
function clear(nodes: Node[], from: Node, to: Node) {
  const middle = bend(from, to);
  for (const part of [0.2, 0.35, 0.5, 0.65, 0.8]) {
    const at = (axis: "x" | "y") =>
      (1 - part) ** 2 * from[axis] + 2 * part * (1 - part) * middle[axis] + part ** 2 * to[axis];
    const [x, y] = [at("x"), at("y")];
    for (const node of nodes) {
      if (node === from || node === to) continue;
      const [dx, dy] = [node.x - x, node.y - y];
      if (Math.abs(dx) > node.width / 2 + 6 || Math.abs(dy) > node.height / 2 + 6) continue;
      const away = Math.hypot(dx, dy) || 1;
      node.x += (2 * dx) / away;
      node.y += (2 * dy) / away;
    }
  }
}

/** The way between two tasks is bent, so that an arrow and its counterpart do not cover each other. */
export function bend(from: Point, to: Point): Point {
  return { x: (from.x + to.x) / 2 - 0.14 * (to.y - from.y), y: (from.y + to.y) / 2 + 0.14 * (to.x - from.x) };
}

/** Moves boxes that cover each other apart, along the shorter way, and keeps all within the picture. */
function separate(nodes: Node[]) {
  for (const [i, a] of nodes.entries()) {
    for (const b of nodes.slice(i + 1)) {
      const x = (a.width + b.width) / 2 + APART - Math.abs(b.x - a.x);
      const y = (a.height + b.height) / 2 + APART - Math.abs(b.y - a.y);
      if (x <= 0 || y <= 0) continue;
      const [axis, by] = x < y ? (["x", x] as const) : (["y", y] as const);
      const way = (b[axis] >= a[axis] ? by : -by) / 2;
      a[axis] -= way;
      b[axis] += way;
    }
  }
  for (const node of nodes) {
    node.x = Math.max(node.width / 2 + 2, Math.min(WIDTH - node.width / 2 - 2, node.x));
    node.y = Math.max(node.height / 2 + 2, Math.min(HEIGHT - node.height / 2 - 2, node.y));
  }
}

function broken(title: string): string[] {
  if (title.length <= LINE) return [title];
  const words = title.split(" ");
  // The break that makes the longer line shortest.
  const breaks = words.slice(1).map((_, i) => [words.slice(0, i + 1).join(" "), words.slice(i + 1).join(" ")]);
  const longest = (lines: string[]) => Math.max(...lines.map((line) => line.length));
  return breaks.sort((a, b) => longest(a) - longest(b))[0] ?? [title];
}

/** Where the way from the middle of a box to a point leaves the box. */
export function border(node: Node, to: Point): Point {
  const [dx, dy] = [to.x - node.x, to.y - node.y];
  const part = Math.min((node.width / 2 + 1) / Math.abs(dx), (node.height / 2 + 1) / Math.abs(dy), 1);
  return { x: node.x + part * dx, y: node.y + part * dy };
}
