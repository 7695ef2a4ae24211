import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { TaskGroup } from "../../lib/task_order";
import { describePair, isMeasured, type TaskTitle, type TimCell } from "../../lib/tim_cells";
import { type GridPosition, gridPosition, nextPosition } from "./grid_navigation";
import { HeatmapLegend } from "./heatmap_legend";
import { HeatmapBody, HeatmapHead } from "./heatmap_rows";
import "./heatmap.css";

interface HeatmapProps {
  groups: TaskGroup[];
  cells: TimCell[];
  title: TaskTitle;
}

/**
 * The task interaction matrix. Row: the task whose performance changes. Column: the task learned beside it.
 * It is an ARIA grid: the Tab key reaches it once, and arrow keys move inside it.
 */
export function Heatmap({ groups, cells, title }: HeatmapProps) {
  const [focused, setFocused] = useState<GridPosition>({ row: 0, column: 0 });
  const [described, setDescribed] = useState<TimCell>();
  const table = useRef<HTMLTableElement>(null);

  const names = groups.flatMap((group) => group.tasks);
  const cellsByPair = useMemo(() => new Map(cells.map((cell) => [`${cell.source} ${cell.task}`, cell])), [cells]);
  const limit = useMemo(() => colourLimit(cells), [cells]);
  const cellAt = ({ row, column }: GridPosition) => cellsByPair.get(`${names[row]} ${names[column]}`);
  // The body has 1,936 cells. Memoising it avoids a comparison of all cells at each move of the pointer.
  const body = useMemo(
    () => <HeatmapBody groups={groups} cellsByPair={cellsByPair} title={title} limit={limit} focused={focused} />,
    [groups, cellsByPair, focused],
  );

  const openTask = ({ row }: GridPosition) => {
    location.hash = `tim/${names[row]}`;
  };
  const handleKey = (event: KeyboardEvent) => {
    if (event.key === "Enter") openTask(focused);
    const next = nextPosition(event, focused, names.length);
    if (!next) return;
    event.preventDefault();
    table.current?.querySelector<HTMLElement>(`[data-position="${next.row} ${next.column}"]`)?.focus();
  };

  return (
    <>
      <HeatmapLegend limit={limit} />
      <Readout text={described ? describePair(described, title) : ""} />
      <div class="scroll">
        <table
          ref={table}
          // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: ARIA allows the role grid on a table
          role="grid"
          aria-label="Task interaction matrix. Row: the task that is helped. Column: the task that helps."
          class={groups.length > 1 ? "heatmap grouped" : "heatmap"}
          style={{ "--tasks": names.length, "--groups": groups.length }}
          onKeyDown={handleKey}
          {...cellHandlers({
            focus: (position) => {
              setFocused(position);
              setDescribed(cellAt(position));
            },
            point: (position) => setDescribed(cellAt(position)),
            open: (position) => position.column >= 0 && openTask(position),
          })}
        >
          <HeatmapHead groups={groups} title={title} highlighted={described?.task} />
          {body}
        </table>
      </div>
    </>
  );
}

type PositionHandler = (position: GridPosition) => void;

/** Event handlers of the grid. Each finds the cell of an event by its position. */
function cellHandlers(handlers: { focus: PositionHandler; point: PositionHandler; open: PositionHandler }) {
  const withPosition = (handle: PositionHandler) => (event: Event) => {
    const position = gridPosition(event.target);
    if (position) handle(position);
  };
  return {
    onFocusIn: withPosition(handlers.focus),
    onPointerOver: withPosition(handlers.point),
    onClick: withPosition(handlers.open),
  };
}

/** The effect with the full colour: the 98th percentile, because a few effects are far larger than the others. */
function colourLimit(cells: TimCell[]): number {
  const sizes = cells.filter(isMeasured).map((cell) => Math.abs(cell.effect[0]));
  sizes.sort((a, b) => a - b);
  return sizes[Math.floor(0.98 * sizes.length)] || 1;
}

const ANNOUNCEMENT_DELAY_MS = 700;

/** The description of the current cell. Screen readers announce it once the pointer or the focus rests. */
function Readout({ text }: { text: string }) {
  const [announced, setAnnounced] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setAnnounced(text), ANNOUNCEMENT_DELAY_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <div class="readout">
      <p aria-hidden="true">
        {text || <span class="muted">To read a cell, point at it or move to it with the arrow keys.</span>}
      </p>
      <p class="visually-hidden" aria-live="polite">
        {announced}
      </p>
    </div>
  );
}
