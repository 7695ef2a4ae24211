// What the service has seen since it started: its counters, of /usage.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { MODALITIES, type Problem, Refused, type Usage, usage } from "./api";
import { type Known, Panel } from "./app";
import { share } from "./numbers";
import { ProblemNote } from "./problem";

const MISSING = 12; // variables that are listed

/** Counts, the largest first. */
function largest(counts: Record<string, number>): [string, number][] {
  return Object.entries(counts).sort((a, b) => b[1] - a[1]);
}

export function Seen({ known }: { known: Known }) {
  const [counts, show] = useState<Usage>();
  const [problem, fail] = useState<Problem>();
  const [asked, ask] = useState<Date>();
  const refresh = () =>
    usage().then(
      (counts) => {
        show(counts);
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
      {counts && <Counts known={known} counts={counts} />}
    </Panel>
  );
}

function Counts({ known, counts }: { known: Known; counts: Usage }) {
  const predictions = counts.predictions;
  const display = new Map(known.variables.map((variable) => [variable.name, variable.display]));
  const present = largest(counts.variables).reverse();
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
        <Tallies title="Requests by status" rows={largest(counts.requests)} />
        {predictions > 0 && (
          <>
            <Tallies
              title="Predictions with"
              rows={MODALITIES.map(([modality, title]) => [title, counts.modalities[modality] ?? 0])}
              of={predictions}
            />
            <Tallies
              title={`Most often missing, of ${present.length} variables`}
              rows={present.slice(0, MISSING).map(([name, count]) => [display.get(name) ?? name, predictions - count])}
              of={predictions}
            />
            <Tallies
              title="Input not used, by reason"
              rows={largest(counts.ignored).map(([reason, count]) => [reason.replaceAll("_", " "), count])}
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
