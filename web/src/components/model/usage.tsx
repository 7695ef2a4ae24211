// Usage counters since the service started (`GET /usage`).
import { useEffect, useState } from "preact/hooks";
import { fetchUsage, type Known, MODALITIES, type Problem, ProblemError, type Usage } from "../../lib/api";
import { count, share, spaced } from "../../lib/numbers";
import { Panel } from "../panel";
import { ProblemNote } from "../problem_note";

export function UsagePanel({ known }: { known: Known }) {
  const [usage, setUsage] = useState<Usage>();
  const [problem, setProblem] = useState<Problem>();
  const [updated, setUpdated] = useState<Date>();
  const refresh = () =>
    fetchUsage().then(
      (counters) => {
        setUsage(counters);
        setUpdated(new Date());
        setProblem(undefined);
      },
      (error) => setProblem(error instanceof ProblemError ? error.problem : undefined),
    );
  useEffect(() => {
    void refresh();
  }, []);
  return (
    <Panel title="Usage since the service started">
      <p class="row">
        <button type="button" onClick={refresh}>
          Refresh
        </button>
        <span class="muted small" role="status">
          {updated && `as of ${updated.toLocaleTimeString("en-GB")}`}
        </span>
      </p>
      {problem && <ProblemNote problem={problem} />}
      {usage && <Counters known={known} usage={usage} />}
    </Panel>
  );
}

const SHOWN_VARIABLES = 12;

function Counters({ known, usage }: { known: Known; usage: Usage }) {
  const { predictions } = usage;
  const displayNames = new Map(known.variables.map(({ name, display }) => [name, display]));
  const leastPresent = largestFirst(usage.variables).reverse();
  return (
    <>
      <p>
        <PredictionCount predictions={predictions} /> The service counts requests and inputs. It stores no value of a
        patient.
      </p>
      <div class="counts">
        <CounterTable title="Requests by status" rows={largestFirst(usage.requests)} />
        {predictions > 0 && (
          <>
            <CounterTable
              title="Predictions with"
              rows={MODALITIES.map(([modality, title]) => [title, usage.modalities[modality] ?? 0])}
              total={predictions}
            />
            <CounterTable
              title={`Most often missing, of ${leastPresent.length} variables`}
              rows={leastPresent
                .slice(0, SHOWN_VARIABLES)
                .map(([name, present]) => [displayNames.get(name) ?? name, predictions - present])}
              total={predictions}
            />
            <CounterTable
              title="Unused input, by reason"
              rows={largestFirst(usage.ignored).map(([reason, entries]) => [spaced(reason), entries])}
              emptyText="All input was used."
            />
          </>
        )}
      </div>
    </>
  );
}

function PredictionCount({ predictions }: { predictions: number }) {
  if (predictions === 0) return <>No predictions yet.</>;
  return (
    <>
      <strong>{count(predictions)}</strong> prediction{predictions === 1 ? "" : "s"}; each patient of a batch is one
      prediction.
    </>
  );
}

function largestFirst(counters: Record<string, number>): [string, number][] {
  return Object.entries(counters).sort((a, b) => b[1] - a[1]);
}

interface CounterTableProps {
  title: string;
  rows: [label: string, counter: number][];
  /** If given, each row also shows its share of the total. */
  total?: number;
  emptyText?: string;
}

function CounterTable({ title, rows, total, emptyText = "None yet." }: CounterTableProps) {
  return (
    <section>
      <h3>{title}</h3>
      {rows.length === 0 && <p class="muted">{emptyText}</p>}
      <table>
        <tbody>
          {rows.map(([label, counter], r) => (
            <tr key={r}>
              <th scope="row">{label}</th>
              <td class="number">{count(counter)}</td>
              {total !== undefined && <ShareCells counter={counter} total={total} />}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function ShareCells({ counter, total }: { counter: number; total: number }) {
  return (
    <>
      <td class="number">{counter === total ? "all" : counter ? share(counter / total) : "none"}</td>
      <td class="share">
        <svg aria-hidden="true">
          <rect width={`${(100 * counter) / total}%`} height="100%" />
        </svg>
      </td>
    </>
  );
}
