import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Cell, effect, measured, said, surety, type Titles } from "./cells";
import type { Group } from "./order";

interface Place {
  row: number;
  /** -1: the row's header. */
  column: number;
}

interface Props {
  groups: Group[];
  cells: Cell[];
  title: Titles;
}

/** A grid (ARIA): one stop of the Tab key, arrows within. Row: is helped. Column: helps. */
export function Heatmap({ groups, cells, title }: Props) {
  const [at, go] = useState<Place>({ row: 0, column: 0 });
  const [told, tell] = useState<Cell>();
  const table = useRef<HTMLTableElement>(null);

  const names = groups.flatMap((group) => group.tasks);
  const first = new Set(groups.map((group) => group.tasks[0]));
  const found = useMemo(() => new Map(cells.map((cell) => [`${cell.source} ${cell.task}`, cell])), [cells]);
  const limit = useMemo(() => scaleLimit(cells), [cells]);
  const cellAt = ({ row, column }: Place) => found.get(`${names[row]} ${names[column]}`);

  // As the pointer moves, 1,936 cells need not be compared with what they were.
  const body = useMemo(
    () =>
      groups.map((group) => (
        <tbody key={group.tasks[0]}>
          {group.tasks.map((source, i) => {
            const row = names.indexOf(source);
            const focusable = (column: number) => ({
              "data-at": `${row} ${column}`,
              tabIndex: row === at.row && column === at.column ? 0 : -1,
            });
            return (
              <tr key={source}>
                {group.title && i === 0 && (
                  <th
                    scope="rowgroup"
                    rowSpan={group.tasks.length}
                    class={`department ${group.tasks.length === 1 ? "alone" : ""}`}
                    title={group.title}
                  >
                    <span>{group.title}</span>
                  </th>
                )}
                <th scope="row">
                  <a href={`#tim/${source}`} title={title(source)} {...focusable(-1)}>
                    {title(source)}
                  </a>
                </th>
                {names.map((task, column) => {
                  const cell = found.get(`${source} ${task}`);
                  const value = cell && measured(cell) ? cell.effect[0] : null;
                  const kind = cell && measured(cell) ? `${value! > 0 ? "more" : "less"} ${surety(cell)}` : "none";
                  return (
                    <td
                      key={task}
                      {...focusable(column)}
                      data-source={source}
                      data-task={task}
                      data-value={value ?? ""}
                      aria-label={cell ? said(cell) : "not measured"}
                      class={`${kind} ${first.has(task) && column > 0 ? "start" : ""}`}
                      style={{ "--strength": strength(value, limit) }}
                    />
                  );
                })}
              </tr>
            );
          })}
        </tbody>
      )),
    [groups, found, at],
  );

  const move = (event: KeyboardEvent) => {
    const last = names.length - 1;
    const { row, column } = at;
    const to: Record<string, Place> = {
      ArrowLeft: { row, column: Math.max(-1, column - 1) },
      ArrowRight: { row, column: Math.min(last, column + 1) },
      ArrowUp: { row: Math.max(0, row - 1), column },
      ArrowDown: { row: Math.min(last, row + 1), column },
      Home: { row: event.ctrlKey ? 0 : row, column: -1 },
      End: { row: event.ctrlKey ? last : row, column: last },
    };
    const next = to[event.key];
    if (event.key === "Enter") open(at);
    if (!next) return;
    event.preventDefault();
    table.current?.querySelector<HTMLElement>(`[data-at="${next.row} ${next.column}"]`)?.focus();
  };
  const open = ({ row }: Place) => {
    location.hash = `tim/${names[row]}`;
  };

  return (
    <>
      <Legend limit={limit} />
      <Readout cell={told} title={title} />
      <div class="scroll">
        <table
          ref={table}
          role="grid"
          aria-label="Task interaction matrix. Row: the task that is helped. Column: the task that helps."
          class={groups.length > 1 ? "heatmap grouped" : "heatmap"}
          style={{ "--tasks": names.length, "--groups": groups.length }}
          onKeyDown={move}
          onFocusIn={(event) => {
            const place = placeOf(event.target);
            if (!place) return;
            go(place);
            tell(cellAt(place));
          }}
          onPointerOver={(event) => {
            const place = placeOf(event.target);
            if (place) tell(cellAt(place));
          }}
          onClick={(event) => {
            const place = placeOf(event.target);
            if (place && place.column >= 0) open(place);
          }}
        >
          <thead>
            {groups.length > 1 && (
              <tr class="departments">
                <td colSpan={2} />
                {groups.map((group, g) => (
                  <th
                    key={group.title}
                    scope="colgroup"
                    colSpan={group.tasks.length}
                    class={g > 0 ? "start" : ""}
                    title={group.title}
                  >
                    <span class="unseen">{group.title}</span>
                  </th>
                ))}
              </tr>
            )}
            <tr>
              <td class="corner" colSpan={groups.length > 1 ? 2 : 1}>
                <span>helps →</span>
                <br />
                <span>is helped ↓</span>
              </td>
              {names.map((task, column) => (
                <th
                  key={task}
                  scope="col"
                  title={title(task)}
                  class={`${first.has(task) && column > 0 ? "start" : ""} ${told?.task === task ? "here" : ""}`}
                >
                  <span>{title(task)}</span>
                </th>
              ))}
            </tr>
          </thead>
          {body}
        </table>
      </div>
    </>
  );
}

function placeOf(target: EventTarget | null): Place | undefined {
  const [row, column] = (target as HTMLElement).dataset["at"]?.split(" ").map(Number) ?? [];
  return row === undefined || column === undefined ? undefined : { row, column };
}

/** Where the colour is full: few cells are so much larger than the others that these would have none. */
function scaleLimit(cells: Cell[]): number {
  const sizes = cells.filter(measured).map((cell) => Math.abs(cell.effect[0]));
  sizes.sort((a, b) => a - b);
  return sizes[Math.floor(0.98 * sizes.length)] || 1;
}

function strength(value: number | null, limit: number): string {
  return `${Math.min(100, (100 * Math.abs(value ?? 0)) / limit).toFixed(0)}%`;
}

/** In its place while the pointer moves; it is spoken only once the pointer or the focus rests. */
function Readout({ cell, title }: { cell: Cell | undefined; title: Titles }) {
  const words = cell ? sentence(cell, title) : "";
  const [spoken, speak] = useState("");
  useEffect(() => {
    const rests = setTimeout(() => speak(words), 700);
    return () => clearTimeout(rests);
  }, [words]);
  return (
    <div class="readout">
      <p aria-hidden="true">
        {words || <span class="quiet">Point at a cell, or move to it with the arrow keys, to read it.</span>}
      </p>
      <p class="unseen" aria-live="polite">
        {spoken}
      </p>
    </div>
  );
}

function sentence(cell: Cell, title: Titles): string {
  if (cell.source === cell.task) return `${title(cell.source)}: a task does not teach itself.`;
  if (!measured(cell)) return `What learning ${title(cell.task)} brought ${title(cell.source)} was not measured.`;
  return `Learning ${title(cell.task)} brought ${title(cell.source)} ${said(cell)}.`;
}

function Legend({ limit }: { limit: number }) {
  return (
    <div class="legend">
      <span class="scale">
        <span class="number">≤ {effect(-limit)}</span> <span class="ramp" aria-hidden="true" />{" "}
        <span class="number">≥ {effect(limit)}</span>
      </span>
      <span>
        <span class="sample more unclear" aria-hidden="true" /> small: interval holds zero
      </span>
      <span>
        <span class="sample more apart" aria-hidden="true" /> full: leaves out zero
      </span>
      <span>
        <span class="sample more certain" aria-hidden="true" /> outlined: certain
      </span>
    </div>
  );
}
