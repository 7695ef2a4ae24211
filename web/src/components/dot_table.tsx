// A dot plot with intervals on one axis. It is a table, so each number can also be read or heard.
import { scaleLinear } from "d3-scale";
import type { ComponentChildren } from "preact";
import { type Estimate, excludes, type NumberFormat } from "../lib/estimates";
import { EstimateFigure } from "./estimate_figure";
import "./dot_table.css";

interface Row {
  label: ComponentChildren;
  /** An estimate for each series; null if there are too few patients. */
  dots: (Estimate | null)[];
  extraCells?: ComponentChildren[];
}

interface DotTableProps {
  caption: ComponentChildren;
  /** The heading of the rows' labels. */
  label: string;
  series: string[];
  /** The headings of the extra cells. */
  extraHeadings?: string[];
  rows: Row[];
  format: NumberFormat;
  /** The value of no effect. A dot whose interval includes it is hollow. */
  reference?: number;
}

// The shapes of the series differ, so colour is not needed: a disc, a ring, a diamond.
const MARKS = [
  "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
  "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
  "M0-5.5 5.5 0 0 5.5-5.5 0z",
];

export function DotTable(props: DotTableProps) {
  const { caption, label, series, extraHeadings = [], rows, format, reference } = props;
  const axis = axisOf(rows, reference);
  // Dots without intervals share a line. Intervals would overlap, so each series then has its own line.
  const lanes = rows.some((row) => row.dots.some((dot) => dot?.[1] != null)) ? series.length : 1;
  return (
    <table class="dot-table">
      <caption>
        {caption}
        {series.length > 1 && <SeriesKeys series={series} />}
      </caption>
      <thead>
        <tr>
          <th scope="col">{label}</th>
          <th scope="col" class="plot">
            <span class="visually-hidden">Plot</span>
            <AxisLabels axis={axis} />
          </th>
          {[...series, ...extraHeadings].map((heading) => (
            <th key={heading} scope="col">
              {heading}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((row, r) => (
          <tr key={r}>
            <th scope="row">{row.label}</th>
            <td class="plot" style={{ height: `${0.8 * lanes + 0.9}rem` }}>
              <RowPlot dots={row.dots} lanes={lanes} axis={axis} reference={reference} />
            </td>
            {row.dots.map((dot, s) => (
              <td key={s}>
                {dot ? <EstimateFigure format={format} estimate={dot} /> : <span class="muted">too few patients</span>}
              </td>
            ))}
            {row.extraCells?.map((cell, c) => (
              <td key={c}>{cell}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

interface Axis {
  ticks: number[];
  tickLabel: (tick: number) => string;
  /** The position of a value along the axis, as a CSS percentage. */
  position: (value: number) => string;
}

function axisOf(rows: Row[], reference: number | undefined): Axis {
  const numbers = rows.flatMap((row) => row.dots.flatMap((dot) => dot ?? [])).filter((n) => n != null);
  if (reference !== undefined) numbers.push(reference);
  const scale = scaleLinear([Math.min(...numbers), Math.max(...numbers)], [0, 100]).nice(5);
  return { ticks: scale.ticks(2), tickLabel: scale.tickFormat(2), position: (value) => `${scale(value)}%` };
}

function SeriesKeys({ series }: { series: string[] }) {
  return (
    <span class="keys">
      {series.map((name, s) => (
        <span key={name}>
          <svg class="key" viewBox="-6 -6 12 12" aria-hidden="true">
            <path class={`mark mark-${s}`} d={MARKS[s]} />
          </svg>{" "}
          {name}
        </span>
      ))}
    </span>
  );
}

function AxisLabels({ axis }: { axis: Axis }) {
  return (
    <svg class="axis" aria-hidden="true">
      {axis.ticks.map((tick) => (
        <text key={tick} x={axis.position(tick)} y="1em" text-anchor="middle">
          {axis.tickLabel(tick)}
        </text>
      ))}
    </svg>
  );
}

interface RowPlotProps {
  dots: (Estimate | null)[];
  lanes: number;
  axis: Axis;
  reference: number | undefined;
}

function RowPlot({ dots, lanes, axis, reference }: RowPlotProps) {
  const { ticks, position } = axis;
  return (
    <svg aria-hidden="true">
      {ticks.map((tick) => (
        <line key={tick} class="tick" x1={position(tick)} x2={position(tick)} y1="0" y2="100%" />
      ))}
      {reference !== undefined && (
        <line class="reference" x1={position(reference)} x2={position(reference)} y1="0" y2="100%" />
      )}
      {dots.map((dot, s) => {
        if (!dot) return null;
        const [value, lower, upper] = dot;
        const y = `${(100 * (lanes > 1 ? s + 1 : 1)) / (lanes + 1)}%`;
        return (
          <g key={s} class={referenceClass(dot, reference)}>
            {lower != null && upper != null && (
              <line class="range" x1={position(lower)} x2={position(upper)} y1={y} y2={y} />
            )}
            <svg x={position(value)} y={y} overflow="visible" aria-hidden="true">
              <path class={`mark mark-${s}`} d={MARKS[s]} />
            </svg>
          </g>
        );
      })}
    </svg>
  );
}

function referenceClass(dot: Estimate, reference: number | undefined): string {
  if (reference === undefined) return "";
  if (!excludes(dot, reference)) return "hollow";
  return dot[0] > reference ? "above" : "below";
}
