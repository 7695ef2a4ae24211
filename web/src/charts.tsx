// Dots with their intervals on one axis. It is a table, so that each number can also be read and heard.
import { scaleLinear } from "d3-scale";
import type { ComponentChildren } from "preact";
import "./charts.css";

/** A number, and its 95 % interval if one was measured. */
export type Ranged = readonly [value: number, lower: number | null | undefined, upper: number | null | undefined];
export type Form = (value: number) => string;

export function ranged(form: Form, [value, lower, upper]: Ranged): string {
  return lower == null || upper == null ? form(value) : `${form(value)} [${form(lower)}, ${form(upper)}]`;
}

/** The same where space may be scarce: the interval goes below its number, not apart. */
export function Figure({ form, found }: { form: Form; found: Ranged }) {
  const [value, interval] = ranged(form, found).split(/ (?=\[)/);
  return (
    <>
      <span class="number">{value}</span> {interval && <span class="number">{interval}</span>}
    </>
  );
}

/** Whether the interval leaves out what no effect would be. */
export function apart([, lower, upper]: Ranged, from: number): boolean {
  return lower != null && upper != null && (lower > from || upper < from);
}

interface Row {
  label: ComponentChildren;
  /** One for each series; null: too few to say. */
  dots: (Ranged | null)[];
  beside?: ComponentChildren[];
}

interface Props {
  caption: ComponentChildren;
  label: string;
  series: string[];
  /** Heads of further columns. */
  beside?: string[];
  rows: Row[];
  form: Form;
  /** Where no effect, or chance, would be; a dot whose interval holds it is hollow. */
  reference?: number;
}

// The series can be told apart without colour: a disc, a ring, a diamond.
const MARKS = [
  "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
  "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
  "M0-5.5 5.5 0 0 5.5-5.5 0z",
];

export function DotTable({ caption, label, series, beside = [], rows, form, reference }: Props) {
  const numbers = rows.flatMap((row) => row.dots.flatMap((dot) => dot ?? [])).filter((n) => n != null);
  if (reference !== undefined) numbers.push(reference);
  const x = scaleLinear([Math.min(...numbers), Math.max(...numbers)], [0, 100]).nice(5);
  const ticks = x.ticks(2);
  const short = x.tickFormat(2);
  const at = (value: number) => `${x(value)}%`;
  // Dots alone can share a line; intervals would cover each other.
  const lanes = rows.some((row) => row.dots.some((dot) => dot?.[1] != null)) ? series.length : 1;
  const shape = (dot: Ranged) =>
    reference === undefined ? "" : apart(dot, reference) ? (dot[0] > reference ? "above" : "below") : "hollow";
  return (
    <table class="dot-table">
      <caption>
        {caption}
        {series.length > 1 && (
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
        )}
      </caption>
      <thead>
        <tr>
          <th scope="col">{label}</th>
          <th scope="col" class="drawn">
            <span class="unseen">Drawn</span>
            <svg class="axis" aria-hidden="true">
              {ticks.map((tick) => (
                <text key={tick} x={at(tick)} y="1em" text-anchor="middle">
                  {short(tick)}
                </text>
              ))}
            </svg>
          </th>
          {[...series, ...beside].map((head) => (
            <th key={head} scope="col">
              {head}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((row, r) => (
          <tr key={r}>
            <th scope="row">{row.label}</th>
            <td class="drawn" style={{ height: `${0.8 * lanes + 0.9}rem` }}>
              <svg aria-hidden="true">
                {ticks.map((tick) => (
                  <line key={tick} class="tick" x1={at(tick)} x2={at(tick)} y1="0" y2="100%" />
                ))}
                {reference !== undefined && (
                  <line class="reference" x1={at(reference)} x2={at(reference)} y1="0" y2="100%" />
                )}
                {row.dots.map((dot, s) => {
                  if (!dot) return null;
                  const [value, lower, upper] = dot;
                  const y = `${(100 * (lanes > 1 ? s + 1 : 1)) / (lanes + 1)}%`;
                  return (
                    <g key={s} class={shape(dot)}>
                      {lower != null && upper != null && (
                        <line class="range" x1={at(lower)} x2={at(upper)} y1={y} y2={y} />
                      )}
                      <svg x={at(value)} y={y} overflow="visible">
                        <path class={`mark mark-${s}`} d={MARKS[s]} />
                      </svg>
                    </g>
                  );
                })}
              </svg>
            </td>
            {row.dots.map((dot, s) => (
              <td key={s}>{dot ? <Figure form={form} found={dot} /> : <span class="quiet">too few to say</span>}</td>
            ))}
            {row.beside?.map((cell, c) => (
              <td key={c}>{cell}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
