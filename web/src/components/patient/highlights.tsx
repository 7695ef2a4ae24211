import type { Answer } from "../../lib/api";
import { percent } from "../../lib/numbers";
import "./highlights.css";

interface HighlightsProps {
  answer: Answer;
  selected: string | undefined;
  select: (task: string) => void;
}

/** The tasks that the service explains by default: the three probabilities furthest from their prevalence. */
export function Highlights({ answer, selected, select }: HighlightsProps) {
  const explained = answer.explanation?.variables ?? [];
  if (!explained.length) return null;
  return (
    <section aria-label="Most unusual predictions">
      <h2>
        Most unusual predictions <span class="muted small">furthest from the prevalence in the training cohort</span>
      </h2>
      <div class="highlights">
        {explained.map(({ task, because }) => {
          const prediction = answer.predictions.find((candidate) => candidate.task === task);
          if (prediction?.probability == null) return null;
          const inputs = because.slice(0, 3).map((evidence) => evidence.display.toLowerCase());
          return (
            <button
              type="button"
              key={task}
              class="highlight"
              aria-pressed={task === selected}
              onClick={() => select(task)}
            >
              <span class="highlight-name">{prediction.display}</span>
              <span class="highlight-number">{percent(prediction.probability)}</span>
              <span class="muted small">
                {prediction.prevalence != null && `Prevalence: ${percent(prediction.prevalence)}. `}
                {inputs.length > 0 && `Main inputs: ${inputs.join(", ")}.`}
              </span>
            </button>
          );
        })}
      </div>
    </section>
  );
}
