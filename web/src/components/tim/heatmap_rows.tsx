import type { TaskGroup } from "../../lib/task_order";
import { certaintyLevel, describeCell, isMeasured, type TaskTitle, type TimCell } from "../../lib/tim_cells";
import type { GridPosition } from "./grid_navigation";

interface HeatmapHeadProps {
  groups: TaskGroup[];
  title: TaskTitle;
  /** The task whose column is highlighted. */
  highlighted: string | undefined;
}

export function HeatmapHead({ groups, title, highlighted }: HeatmapHeadProps) {
  const groupStarts = groupStartsOf(groups);
  return (
    <thead>
      {groups.length > 1 && <DepartmentHeadings groups={groups} />}
      <tr>
        <td class="corner" colSpan={groups.length > 1 ? 2 : 1}>
          <span>helps →</span>
          <br />
          <span>is helped ↓</span>
        </td>
        {groups
          .flatMap((group) => group.tasks)
          .map((task, column) => (
            <th
              key={task}
              scope="col"
              title={title(task)}
              class={`${groupStarts.has(task) && column > 0 ? "group-start" : ""} ${highlighted === task ? "highlighted" : ""}`}
            >
              <span>{title(task)}</span>
            </th>
          ))}
      </tr>
    </thead>
  );
}

function DepartmentHeadings({ groups }: { groups: TaskGroup[] }) {
  return (
    <tr class="departments">
      <td colSpan={2} />
      {groups.map((group, g) => (
        <th
          key={group.title}
          scope="colgroup"
          colSpan={group.tasks.length}
          class={g > 0 ? "group-start" : ""}
          title={group.title}
        >
          <span class="visually-hidden">{group.title}</span>
        </th>
      ))}
    </tr>
  );
}

interface HeatmapBodyProps {
  groups: TaskGroup[];
  /** The cells by `source task`. */
  cellsByPair: Map<string, TimCell>;
  title: TaskTitle;
  /** The effect with the full colour. */
  limit: number;
  focused: GridPosition;
}

export function HeatmapBody({ groups, cellsByPair, title, limit, focused }: HeatmapBodyProps) {
  const names = groups.flatMap((group) => group.tasks);
  const groupStarts = groupStartsOf(groups);
  return groups.map((group) => (
    <tbody key={group.tasks[0]}>
      {group.tasks.map((source, i) => {
        const row = names.indexOf(source);
        const focusTarget = (column: number) => ({
          "data-position": `${row} ${column}`,
          tabIndex: row === focused.row && column === focused.column ? 0 : -1,
        });
        return (
          <tr key={source}>
            {group.title && i === 0 && <DepartmentHeading title={group.title} size={group.tasks.length} />}
            <th scope="row">
              <a href={`#tim/${source}`} title={title(source)} {...focusTarget(-1)}>
                {title(source)}
              </a>
            </th>
            {names.map((task, column) => {
              const cell = cellsByPair.get(`${source} ${task}`);
              const value = cell?.effect?.[0] ?? null;
              return (
                <td
                  key={task}
                  {...focusTarget(column)}
                  data-source={source}
                  data-task={task}
                  data-value={value ?? ""}
                  aria-label={cell ? describeCell(cell) : "not measured"}
                  class={`${effectClass(cell)} ${groupStarts.has(task) && column > 0 ? "group-start" : ""}`}
                  style={{ "--strength": colourStrength(value, limit) }}
                />
              );
            })}
          </tr>
        );
      })}
    </tbody>
  ));
}

function DepartmentHeading({ title, size }: { title: string; size: number }) {
  return (
    <th scope="rowgroup" rowSpan={size} class={`department ${size === 1 ? "single-row" : ""}`} title={title}>
      <span>{title}</span>
    </th>
  );
}

function groupStartsOf(groups: TaskGroup[]): Set<string | undefined> {
  return new Set(groups.map((group) => group.tasks[0]));
}

function effectClass(cell: TimCell | undefined): string {
  if (!cell || !isMeasured(cell)) return "not-measured";
  return `${cell.effect[0] > 0 ? "more" : "less"} ${certaintyLevel(cell)}`;
}

function colourStrength(value: number | null, limit: number): string {
  return `${Math.min(100, (100 * Math.abs(value ?? 0)) / limit).toFixed(0)}%`;
}
