// Keyboard navigation of an ARIA grid whose cells carry their position in `data-position`.

export interface GridPosition {
  row: number;
  /** -1 is the row's header. */
  column: number;
}

/** The position that a key press moves to; undefined for other keys. The grid is square. */
export function nextPosition(
  { key, ctrlKey }: Pick<KeyboardEvent, "key" | "ctrlKey">,
  { row, column }: GridPosition,
  size: number,
): GridPosition | undefined {
  const last = size - 1;
  const moves: Record<string, GridPosition> = {
    ArrowLeft: { row, column: Math.max(-1, column - 1) },
    ArrowRight: { row, column: Math.min(last, column + 1) },
    ArrowUp: { row: Math.max(0, row - 1), column },
    ArrowDown: { row: Math.min(last, row + 1), column },
    Home: { row: ctrlKey ? 0 : row, column: -1 },
    End: { row: ctrlKey ? last : row, column: last },
  };
  return moves[key];
}

/** The position of an element of the grid; undefined outside its cells. */
export function gridPosition(target: EventTarget | null): GridPosition | undefined {
  const [row, column] = (target as HTMLElement).dataset.position?.split(" ").map(Number) ?? [];
  return row === undefined || column === undefined ? undefined : { row, column };
}
