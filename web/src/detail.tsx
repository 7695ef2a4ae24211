import { useState } from "preact/hooks";
import * as api from "./api";
import type { Known } from "./app";
import { before, decimal, measured, percent, points, quantity, share, signed, unit } from "./numbers";
import { hasOneNumber, type Visit } from "./patient";
import { className, classesOf, Track } from "./predictions";

/** One task: what its number means, how sure it is, and where it comes from. */
export function Detail(props: {
  prediction: api.Prediction;
  visit: Visit;
  because: api.Part[] | undefined;
  known: Known;
}) {
  const { prediction: one, visit } = props;
  const explanation = visit.answer.explanation;
  return (
    <section class="panel detail" id="detail" tabIndex={-1} aria-label={`Why: ${one.display}`}>
      <p class="small quiet">{one.department}</p>
      <h2>{one.display}</h2>
      <p>{one.means}</p>
      {one.abstained ? <p>No answer: {one.abstained.reason}</p> : <Stand one={one} />}
      {explanation && (
        <>
          <Modalities key={one.task} one={one} explanation={explanation} receipt={visit.answer.receipt} />
          {hasOneNumber(one) && <Because one={one} parts={props.because} visit={visit} />}
          <Attention one={one} explanation={explanation} known={props.known} />
        </>
      )}
      {!explanation && !one.abstained && <p>The service gave no reasons: the attention is not finite.</p>}
    </section>
  );
}

function Stand({ one }: { one: api.Prediction }) {
  if (one.probability != null) {
    return (
      <>
        <p class="stand">
          <strong class="big number">{percent(one.probability)}</strong>
          {one.interval && (
            <span class="number">
              {" "}
              {percent(one.interval.low)} to {percent(one.interval.high)}
            </span>
          )}
          {one.prevalence != null && <span class="quiet"> · of all patients of the training: {percent(one.prevalence)}</span>}
        </p>
        <Track one={one} />
        <p class="small quiet">{one.set ? inWords(one.set) : one.no_set}</p>
      </>
    );
  }
  if (one.value != null) {
    return (
      <p class="stand">
        <strong class="big number">
          {decimal(one.value, 1)} {unit(one.unit)}
        </strong>
        {one.interval && (
          <span class="number">
            {" "}
            {decimal(one.interval.low, 1)} to {decimal(one.interval.high, 1)}
          </span>
        )}
      </p>
    );
  }
  return (
    <>
      {one.description && <p>{one.description}</p>}
      <table class="bars">
        <tbody>
          {classesOf(one).map(([name, value]) => (
            <tr key={name}>
              <th scope="row">{className(name)}</th>
              <td class="number">{percent(value)}</td>
              <td class="wide" aria-hidden="true">
                <div class="fill" style={{ width: `${100 * value}%` }} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function inWords(set: readonly string[]): string {
  const both = "Both yes and no fit this patient: the model cannot say.";
  const none = "This patient is unlike those with it and unlike those without.";
  const yes = "Nine in ten patients without it do not look like this. Of a rare disease that does not make it likely.";
  const no = "Nine in ten patients with it do not look like this.";
  return set.length === 2 ? both : set.length === 0 ? none : set[0] === "yes" ? yes : no;
}

// ---- modalities

/** From the number with nothing known to the one that was predicted, a step for each modality. */
function Modalities(props: { one: api.Prediction; explanation: api.Explanation; receipt: api.Receipt }) {
  const { one, receipt } = props;
  const told = props.explanation.modalities[one.task];
  const [chosen, choose] = useState(classesOf(one)[0]?.[0] ?? "");
  if (!told) return null;
  const shares = hasOneNumber(one)
    ? (told as api.Contributions)
    : (told as Record<string, api.Contributions>)[chosen];
  if (!shares) return null;
  const days = one.value != null;
  const whole = (value: number) => (days ? `${decimal(value, 1)} ${unit(one.unit)}` : percent(value));
  const change = (value: number) => (days ? signed(value, 1) : points(value));
  let reached = shares.baseline;
  const steps = api.MODALITIES.map(([name, title]) => {
    const from = reached;
    reached += shares[name];
    return { name, title, from, to: reached };
  });
  const ends = [0, shares.baseline, ...steps.map((step) => step.to)];
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const at = (value: number) => `${(100 * (value - low)) / (high - low || 1)}%`;
  return (
    <>
      <h3>What each modality contributed</h3>
      {!hasOneNumber(one) && (
        <label class="small">
          to{" "}
          <select value={chosen} onChange={(event) => choose(event.currentTarget.value)}>
            {classesOf(one).map(([name]) => (
              <option key={name} value={name}>
                {className(name)}
              </option>
            ))}
          </select>
        </label>
      )}
      <table class="bars steps">
        <tbody>
          <tr>
            <th scope="row">Nothing known</th>
            <td class="number">{whole(shares.baseline)}</td>
            <td class="wide" aria-hidden="true">
              <div class="fill quiet-fill" style={{ left: at(0), width: at(low + shares.baseline) }} />
            </td>
          </tr>
          {steps.map(({ name, title, from, to }) => (
            <tr key={name} data-modality={name} data-share={shares[name]}>
              <th scope="row">{title}</th>
              <td class="number">{shares[name] === 0 ? <Unused name={name} task={one.task} receipt={receipt} /> : change(shares[name])}</td>
              <td class="wide" aria-hidden="true">
                {to !== from && (
                  <div
                    class={`fill ${to > from ? "more-fill" : "less-fill"}`}
                    style={{ left: at(Math.min(from, to)), width: at(low + Math.abs(to - from)) }}
                  />
                )}
              </td>
            </tr>
          ))}
          <tr>
            <th scope="row">Predicted</th>
            <td class="number">
              <strong>{whole(reached)}</strong>
            </td>
            <td class="wide" aria-hidden="true">
              <div class="fill quiet-fill" style={{ left: at(0), width: at(low + reached) }} />
            </td>
          </tr>
        </tbody>
      </table>
      <p class="small quiet">
        {days ? "In days" : "In percentage points"}; exact Shapley values, which add up. What two modalities both say,
        they share.
      </p>
    </>
  );
}

function Unused(props: { name: api.Modality; task: string; receipt: api.Receipt }) {
  const use = props.receipt.modalities[props.name];
  if (!use || use.status === "absent") return <span class="quiet">not sent</span>;
  if (use.status === "hidden" || use.hidden_from?.includes(props.task)) {
    return (
      <span class="quiet" title="No patient of the training had both this and the label of this task.">
        hidden
      </span>
    );
  }
  return <>0</>;
}

// ---- variables

/** The parts of the request that the number rests on most: what it loses without each. */
function Because(props: { one: api.Prediction; parts: api.Part[] | undefined; visit: Visit }) {
  const { one, parts, visit } = props;
  const days = one.value != null;
  const largest = Math.max(...(parts ?? []).map((part) => Math.abs(part.contribution)));
  return (
    <>
      <h3>What it rests on most</h3>
      {!parts && <p role="status">Leaving out one thing at a time …</p>}
      {parts?.length === 0 && <p>Nothing that was sent moves this number by itself.</p>}
      {!!parts?.length && (
        <>
          <table class="bars because">
            <tbody>
              {parts.map((part) => (
                <tr key={part.name + part.pointers.join()} data-part={part.name}>
                  <th scope="row">
                    {part.display}
                    <div class="small quiet">{seen(part, visit)}</div>
                  </th>
                  <td class="number">
                    <data value={part.contribution}>{days ? signed(part.contribution, 2) : points(part.contribution)}</data>
                  </td>
                  <td class="wide" aria-hidden="true">
                    <div
                      class={`fill ${part.contribution > 0 ? "more-fill" : "less-fill"}`}
                      style={{ width: `${(100 * Math.abs(part.contribution)) / largest}%` }}
                    />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
          <p class="small quiet">
            By how {days ? "many days" : "many points"} the number would be lower (+) or higher (−) if this alone were not
            known. No shares: what is also told by another is counted for none. It is not what treatment would do.
          </p>
        </>
      )}
    </>
  );
}

function seen(part: api.Part, { payload }: Visit): string {
  switch (part.kind) {
    case "tabular":
      return typeof part.value === "number" ? quantity(part.value, part.unit) : className(part.value);
    case "series": {
      const range = part.lowest < part.highest ? `; ${measured(part.lowest)} to ${measured(part.highest)}` : "";
      return `${quantity(part.last, part.unit)}, ${before(payload.as_of, part.time)}${range}`;
    }
    case "treatment": {
      const rate = part.rate != null ? `${quantity(part.rate, part.unit)}; ` : "";
      return `${rate}${part.running ? "running, since" : "ended, begun"} ${before(payload.as_of, part.since)}`;
    }
    case "note": {
      if (part.start == null || part.end == null) {
        return `${part.pointers.length + (part.further_pointers ?? 0)} notes, the latest ${before(payload.as_of, part.time)}`;
      }
      const text = payload.notes?.[Number(part.pointers[0]?.split("/")[2])]?.text ?? "";
      return `“${[...text].slice(part.start, part.end).join("").trim()}”, ${before(payload.as_of, part.time)}`;
    }
    case "image":
      return before(payload.as_of, part.time);
  }
}

// ---- attention

const DRAWN_FROM = 5;

function Attention(props: { one: api.Prediction; explanation: api.Explanation; known: Known }) {
  const { attention } = props.explanation;
  if (Array.isArray(attention)) return null; // the page asks for the whole matrix
  const row = attention.weights[attention.tasks.indexOf(props.one.task)];
  if (!row) return null;
  const display = new Map(props.known.tasks.map((task) => [task.name, task.display]));
  const drawn = row
    .map((weight, i) => ({ task: attention.tasks[i] ?? "", weight }))
    .sort((a, b) => b.weight - a.weight)
    .filter(({ task }) => task !== props.one.task)
    .slice(0, DRAWN_FROM);
  const own = row[attention.tasks.indexOf(props.one.task)] ?? 0;
  const listed = [{ task: props.one.task, weight: own }, ...drawn];
  const largest = Math.max(...listed.map(({ weight }) => weight));
  return (
    <>
      <h3>What it was drawn from</h3>
      <table class="bars">
        <tbody>
          {listed.map(({ task, weight }) => (
            <tr key={task} data-drawn={task}>
              <th scope="row">{task === props.one.task ? "Its own evidence" : (display.get(task) ?? task)}</th>
              <td class="number">{share(weight)}</td>
              <td class="wide" aria-hidden="true">
                <div class="fill quiet-fill" style={{ width: `${(100 * weight) / largest}%` }} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="small quiet">
        Attention of this very patient: what the network read. It does not show which diseases are related, nor what
        causes what. {props.known.tim && <a href={`#tim/${props.one.task}`}>What learning the others brought to it</a>}
      </p>
    </>
  );
}
