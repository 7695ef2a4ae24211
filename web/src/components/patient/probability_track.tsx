import type { Prediction } from "../../lib/api";
import "./probability_track.css";

interface ProbabilityTrackProps {
  prediction: Prediction;
  /** The probability after a what-if change. */
  changed?: number | undefined;
}

/** The probability, its interval and the prevalence on a line from 0 to 1. The table gives the same numbers. */
export function ProbabilityTrack({ prediction, changed }: ProbabilityTrackProps) {
  const { probability, prevalence, interval } = prediction;
  if (probability == null) return null;
  const position = (value: number) => `${100 * value}%`;
  const more = prevalence == null || probability >= prevalence;
  return (
    <div class="track" aria-hidden="true">
      {interval && (
        <div class="range" style={{ left: position(interval.low), width: position(interval.high - interval.low) }} />
      )}
      {prevalence != null && <div class="tick" style={{ left: position(prevalence) }} />}
      <div class={`dot ${more ? "more" : "less"}`} style={{ left: position(probability) }} />
      {changed !== undefined && <div class="dot hollow" style={{ left: position(changed) }} />}
    </div>
  );
}
