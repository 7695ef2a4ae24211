import { useState } from "preact/hooks";
import type { Answer, Prediction } from "./api";
import { decimal, percent, points, unit } from "./numbers";

type Order = "department" | "apart";

/** All predictions, each beside its prevalence, with its interval. */
export function Predictions(props: {
  answer: Answer;
  changed: Answer | undefined;
  chosen: string | undefined;
  choose: (task: string) => void;
}) {
  const [order, sort] = useState<Order>("department");
  const changed = new Map(props.changed?.predictions.map((one) => [one.task, one]));
  const groups = order === "department" ? byDepartment(props.answer.predictions) : byDistance(props.answer.predictions);
  return (
    <section class="panel predictions">
      <div class="row">
        <h2>{props.answer.predictions.length} predictions</h2>
        <label class="small print-hidden">
          in the order of{" "}
          <select value={order} onChange={(event) => sort(event.currentTarget.value as Order)}>
            <option value="department">departments</option>
            <option value="apart">distance from what is usual</option>
          </select>
        </label>
      </div>
      <table>
        <caption class="small quiet">
          <span class="key dot" aria-hidden="true" /> probability <span class="key bar" aria-hidden="true" /> how far it
          can be trusted <span class="key tick" aria-hidden="true" /> prevalence in the training cohort
        </caption>
        <thead>
          <tr class="small quiet">
            <th scope="col">
              <span class="unseen">Task</span>
            </th>
            <th scope="col">predicted</th>
            <th scope="col">
              <span class="unseen">Chart</span>
            </th>
            <th scope="col">of all</th>
            <th scope="col">cannot be ruled out</th>
          </tr>
        </thead>
        {groups.map(({ title, predictions }) => (
          <tbody key={title}>
            {title && (
              <tr class="department">
                <th scope="rowgroup" colSpan={5}>
                  {title}
                </th>
              </tr>
            )}
            {predictions.map((one) => (
              <tr key={one.task} data-task={one.task} class={one.task === props.chosen ? "chosen" : ""}>
                <th scope="row">
                  <button
                    class="link"
                    aria-current={one.task === props.chosen ? "true" : undefined}
                    title={one.means}
                    onClick={() => props.choose(one.task)}
                  >
                    {one.display}
                  </button>
                </th>
                <Row one={one} changed={changed.get(one.task)} />
              </tr>
            ))}
          </tbody>
        ))}
      </table>
    </section>
  );
}

function Row({ one, changed }: { one: Prediction; changed: Prediction | undefined }) {
  if (one.abstained) {
    return (
      <td colSpan={4} class="quiet">
        no answer: {one.abstained.reason}
      </td>
    );
  }
  if (one.probability != null) {
    const moved = movedTo(one.probability, changed?.probability);
    return (
      <>
        <td class="number">
          <data value={one.probability}>{percent(one.probability)}</data>
          {moved !== undefined && <span class="moved"> {points(moved - one.probability)}</span>}
        </td>
        <td class="chart">
          <Track one={one} changed={moved} />
        </td>
        <td class="number quiet">{one.prevalence != null && percent(one.prevalence)}</td>
        <td class="set small quiet" title={one.no_set ?? undefined}>
          {one.set ? SETS[one.set.join()] : one.no_set ? "too few to say" : ""}
        </td>
      </>
    );
  }
  if (one.value != null) {
    return (
      <>
        <td class="number">
          <data value={one.value}>
            {decimal(one.value, 1)} {unit(one.unit)}
          </data>
          {changed?.value != null && changed.value !== one.value && (
            <span class="moved"> → {decimal(changed.value, 1)}</span>
          )}
        </td>
        <td colSpan={3} class="small quiet">
          {one.interval && `nine in ten such patients: ${decimal(one.interval.low, 1)} to ${decimal(one.interval.high, 1)} ${unit(one.unit)}`}
        </td>
      </>
    );
  }
  const [likeliest] = classesOf(one);
  return (
    <>
      <td class="number">
        {likeliest && <data value={likeliest[1]}>{percent(likeliest[1])}</data>}
      </td>
      <td colSpan={3} class="small">
        {one.kind === "clustering" ? `group ${one.cluster}` : likeliest && className(likeliest[0])}
        {one.description && <span class="quiet print-hidden">: {one.description}</span>}
        {one.set && <span class="quiet">; cannot be ruled out: {one.set.map(className).join(", ") || "none fits"}</span>}
      </td>
    </>
  );
}

/** Where it is now, if that is a tenth of a point away at least. */
function movedTo(from: number, to: number | null | undefined): number | undefined {
  return to != null && Math.abs(to - from) >= 0.001 ? to : undefined;
}

const SETS: Record<string, string> = { no: "no", yes: "yes", "no,yes": "no, yes", "": "neither fits" };

/** Where the number stands from 0 to 1; the table says the same in words. */
export function Track({ one, changed }: { one: Prediction; changed?: number | undefined }) {
  if (one.probability == null) return null;
  const at = (value: number) => `${100 * value}%`;
  const more = one.prevalence == null || one.probability >= one.prevalence;
  return (
    <div class="track" aria-hidden="true">
      {one.interval && (
        <div class="span" style={{ left: at(one.interval.low), width: at(one.interval.high - one.interval.low) }} />
      )}
      {one.prevalence != null && <div class="tick" style={{ left: at(one.prevalence) }} />}
      <div class={`dot ${more ? "more" : "less"}`} style={{ left: at(one.probability) }} />
      {changed !== undefined && <div class="dot hollow" style={{ left: at(changed) }} />}
    </div>
  );
}

/** The likeliest first. */
export function classesOf(one: Prediction): [string, number][] {
  return Object.entries(one.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
}

export function className(name: string): string {
  return /^\d+$/.test(name) ? `group ${name}` : name.replaceAll("_", " ");
}

interface Group {
  title: string;
  predictions: Prediction[];
}

function byDepartment(predictions: Prediction[]): Group[] {
  const groups = Map.groupBy(predictions, (one) => one.department);
  return [...groups].map(([title, found]) => ({ title, predictions: found }));
}

/** As the service measures what stands out: by the difference of the probabilities. */
function byDistance(predictions: Prediction[]): Group[] {
  const away = (one: Prediction) =>
    one.probability == null || one.prevalence == null ? -1 : Math.abs(one.probability - one.prevalence);
  return [{ title: "", predictions: [...predictions].sort((a, b) => away(b) - away(a)) }];
}
