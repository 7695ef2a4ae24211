import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { decimal, measured, percent, points, unit } from "./numbers";
import type { Visit } from "./patient";
import { ProblemNote } from "./problem";

const PAUSE_MS = 120; // of a hand on the slider, before the service is asked
const SHOWN = 6;

interface Last {
  series: number; // its place in the payload
  at: number; // place of the latest value
  value: number;
  known: api.Variable;
}

/** One vital sign or laboratory value changed: the service is asked again, and what moved is shown. */
export function WhatIf(props: {
  visit: Visit;
  variables: api.Variable[];
  changed: api.Answer | undefined;
  change: (answer: api.Answer | undefined) => void;
}) {
  const { visit } = props;
  const lasts = latest(visit.payload, props.variables);
  const [place, pick] = useState(0);
  const [value, set] = useState<number>();
  const [problem, fail] = useState<api.Problem>();
  const last = lasts[place];

  useEffect(() => {
    pick(0);
    set(undefined);
  }, [visit]);
  useEffect(() => {
    fail(undefined);
    if (!last || value === undefined || value === last.value) {
      props.change(undefined);
      return;
    }
    const asked = new AbortController();
    const body = JSON.stringify(withValue(visit.payload, last, value));
    const pause = setTimeout(() => {
      api.predict(body, { explain: "none" }, asked.signal).then(props.change, (error) => {
        if (error instanceof api.Refused) fail(error.problem);
        else if (!asked.signal.aborted) throw error;
      });
    }, PAUSE_MS);
    return () => {
      clearTimeout(pause);
      asked.abort();
    };
  }, [visit, place, value]);

  if (!last) return null;
  const series = visit.payload.series?.[last.series];
  const [low, high] = range(last, series?.unit);
  const shown = value ?? last.value;
  return (
    <section class="panel what-if print-hidden">
      <h2>What if it were different?</h2>
      <div class="row">
        <label>
          The latest{" "}
          <select
            value={place}
            onChange={(event) => {
              pick(Number(event.currentTarget.value));
              set(undefined);
            }}
          >
            {lasts.map((one, i) => (
              <option key={i} value={i}>
                {one.known.display}
              </option>
            ))}
          </select>
        </label>
        <input
          type="range"
          aria-label={`${last.known.display}, latest value`}
          min={low}
          max={high}
          step={step(low, high)}
          value={shown}
          onInput={(event) => set(event.currentTarget.valueAsNumber)}
        />
        <span class="number">
          <input
            type="number"
            aria-label={`${last.known.display}, latest value, as a number`}
            step="any"
            value={shown}
            onInput={(event) => {
              const typed = event.currentTarget.valueAsNumber;
              if (Number.isFinite(typed)) set(typed);
            }}
          />{" "}
          {unit(series?.unit ?? last.known.units[0])}
        </span>
        <button disabled={shown === last.value} onClick={() => set(undefined)}>
          As it was: {measured(last.value)}
        </button>
      </div>
      {problem && <ProblemNote problem={problem} />}
      {props.changed && <Moved from={visit.answer} to={props.changed} />}
      <p class="small quiet">
        This asks the model about another patient, who differs in this value alone. It does not say what a treatment
        would do.
      </p>
    </section>
  );
}

function Moved({ from, to }: { from: api.Answer; to: api.Answer }) {
  const after = new Map(to.predictions.map((one) => [one.task, one]));
  const moved = from.predictions
    .flatMap((one) => {
      const other = after.get(one.task)?.probability;
      return one.probability == null || other == null ? [] : [{ one, was: one.probability, is: other }];
    })
    .filter(({ was, is }) => Math.abs(is - was) >= 0.0005)
    .sort((a, b) => Math.abs(b.is - b.was) - Math.abs(a.is - a.was))
    .slice(0, SHOWN);
  const stay = [from, to].map((answer) => answer.predictions.find((one) => one.value != null)?.value);
  const ignored = to.receipt.ignored?.filter((entry) => entry.reason === "implausible_value") ?? [];
  return (
    <div role="status">
      {ignored.map((entry) => (
        <p key={entry.pointer}>Not used: {entry.detail}</p>
      ))}
      {moved.length === 0 && <p>No probability moves by a tenth of a point.</p>}
      <table class="moved-table">
        <tbody>
          {moved.map(({ one, was, is }) => (
            <tr key={one.task} data-moved={one.task}>
              <th scope="row">{one.display}</th>
              <td class="number">
                {percent(was)} → <data value={is}>{percent(is)}</data>
              </td>
              <td class="number">{points(is - was)}</td>
            </tr>
          ))}
          {stay[0] != null && stay[1] != null && (
            <tr>
              <th scope="row">Length of stay</th>
              <td class="number">
                {decimal(stay[0], 1)} → {decimal(stay[1], 1)} days
              </td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

/** The latest value of each series whose variable the model knows. */
function latest(payload: api.Payload, variables: api.Variable[]): Last[] {
  const named = new Map<string, api.Variable>();
  for (const known of variables) {
    for (const name of [known.name, ...known.loinc.map((code) => `loinc:${code}`)]) named.set(name, known);
  }
  return (payload.series ?? []).flatMap((one, series) => {
    const known = named.get(one.variable);
    const times = one.times.map((time) => Date.parse(time));
    const at = times.indexOf(Math.max(...times));
    const value = one.values[at];
    return known && typeof value === "number" ? [{ series, at, value, known }] : [];
  });
}

function withValue(payload: api.Payload, { series, at }: Last, value: number): api.Payload {
  const changed = structuredClone(payload);
  const values = changed.series?.[series]?.values;
  if (values) values[at] = value;
  return changed;
}

/** What is plausible is known in the canonical unit; in another, half to double is offered. */
function range({ value, known }: Last, code: string | null | undefined): [number, number] {
  if (!code || code === known.units[0]) return known.plausible as [number, number];
  return value > 0 ? [value / 2, value * 2] : [value * 2, value / 2 + 1];
}

function step(low: number, high: number): number {
  return 10 ** Math.floor(Math.log10((high - low) / 100));
}
