// What the service has seen since it started: its counters, of /metrics.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { MODALITIES, metrics, type Problem, Refused } from "./api";
import { type Known, Panel } from "./app";
import { share } from "./numbers";
import { ProblemNote } from "./problem";

const MISSING = 12; // variables that are listed

interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** The Prometheus text format, version 0.0.4. */
function parse(text: string): Sample[] {
  return text.split("\n").flatMap((line) => {
    const [, name, labels = "", value] = /^([a-z_:]\w*)(?:\{(.*)\})? (\S+)/i.exec(line) ?? [];
    if (name === undefined) return [];
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, told]) => [key, told]);
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value) }];
  });
}

/** The sum of a counter by one of its labels, the largest first. */
function by(samples: Sample[], name: string, label: string): [string, number][] {
  const sums = new Map<string, number>();
  for (const sample of samples) {
    const key = sample.labels[label];
    if (sample.name === name && key !== undefined) sums.set(key, (sums.get(key) ?? 0) + sample.value);
  }
  return [...sums].sort((a, b) => b[1] - a[1]);
}

export function Seen({ known }: { known: Known }) {
  const [samples, show] = useState<Sample[]>();
  const [problem, fail] = useState<Problem>();
  const [asked, ask] = useState<Date>();
  const refresh = () =>
    metrics().then(
      (text) => {
        show(parse(text));
        ask(new Date());
        fail(undefined);
      },
      (error) => fail(error instanceof Refused ? error.problem : undefined),
    );
  useEffect(() => {
    refresh();
  }, []);
  return (
    <Panel title="What the service has seen since it started">
      <p class="row">
        <button type="button" onClick={refresh}>
          Refresh
        </button>
        <span class="quiet small" role="status">
          {asked && `as of ${asked.toLocaleTimeString("en-GB")}`}
        </span>
      </p>
      {problem && <ProblemNote problem={problem} />}
      {samples && <Counts known={known} samples={samples} />}
    </Panel>
  );
}

function Counts({ known, samples }: { known: Known; samples: Sample[] }) {
  const predictions = samples.find((sample) => sample.name === "m3h_predictions_total")?.value ?? 0;
  const requests = by(samples, "m3h_requests_total", "status");
  const ignored = by(samples, "m3h_input_ignored_total", "reason");
  const held = new Map(by(samples, "m3h_modality_present_total", "modality"));
  const display = new Map(known.variables.map((variable) => [variable.name, variable.display]));
  const present = by(samples, "m3h_variable_present_total", "variable").reverse();
  return (
    <>
      <p>
        {predictions === 0 ? (
          "No prediction yet."
        ) : (
          <>
            <strong>{predictions.toLocaleString("en")}</strong> prediction{predictions === 1 ? "" : "s"}, each of a
            batch counted.
          </>
        )}{" "}
        It counts; it keeps no value of a patient.
      </p>
      <div class="counts">
        <Tallies title="Requests by status" rows={requests} />
        {predictions > 0 && (
          <>
            <Tallies
              title="Predictions with"
              rows={MODALITIES.map(([modality, title]) => [title, held.get(modality) ?? 0])}
              of={predictions}
            />
            <Tallies
              title={`Most often missing, of ${present.length} variables`}
              rows={present.slice(0, MISSING).map(([name, count]) => [display.get(name) ?? name, predictions - count])}
              of={predictions}
            />
            <Tallies
              title="Input not used, by reason"
              rows={ignored.map(([reason, count]) => [reason.replaceAll("_", " "), count])}
              none="All input was used."
            />
          </>
        )}
      </div>
    </>
  );
}

interface TalliesProps {
  title: string;
  rows: [ComponentChildren, number][];
  /** If it is given, shares of it are told. */
  of?: number;
  none?: string;
}

function Tallies({ title, rows, of, none = "Nothing yet." }: TalliesProps) {
  return (
    <section>
      <h3>{title}</h3>
      {rows.length === 0 && <p class="quiet">{none}</p>}
      <table>
        <tbody>
          {rows.map(([label, count], r) => (
            <tr key={r}>
              <th scope="row">{label}</th>
              <td class="number">{count.toLocaleString("en")}</td>
              {of !== undefined && (
                <>
                  <td class="number">{count === of ? "all" : count ? share(count / of) : "none"}</td>
                  <td class="part">
                    <svg aria-hidden="true">
                      <rect width={`${(100 * count) / of}%`} height="100%" />
                    </svg>
                  </td>
                </>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
