import type { ComponentChildren } from "preact";
import "./bar_row.css";

interface BarRowProps {
  label: ComponentChildren;
  /** The number in words; the bar only repeats it. */
  number: ComponentChildren;
  /** The CSS class of the bar: `more-fill`, `less-fill` or `neutral-fill`. */
  fill?: string;
  /** Where the bar begins, in percent of the cell. */
  left?: number;
  /** The length of the bar, in percent of the cell; no bar is drawn without it. */
  width?: number | undefined;
  [data: `data-${string}`]: string | number;
}

/** A row of a bar table: a label, a number and a bar. */
export function BarRow({ label, number, fill = "", left, width, ...data }: BarRowProps) {
  return (
    <tr {...data}>
      <th scope="row">{label}</th>
      <td class="number">{number}</td>
      <td class="wide" aria-hidden="true">
        {width !== undefined && (
          <div class={`fill ${fill}`} style={{ width: `${width}%`, ...(left !== undefined && { left: `${left}%` }) }} />
        )}
      </td>
    </tr>
  );
}
