import { type Estimate, formatEstimate, type NumberFormat } from "../lib/estimates";

/** An estimate and its interval. In a narrow column the interval wraps below the value, never inside itself. */
export function EstimateFigure({ format, estimate }: { format: NumberFormat; estimate: Estimate }) {
  const [value, interval] = formatEstimate(format, estimate).split(/ (?=\[)/);
  return (
    <>
      <span class="number">{value}</span> {interval && <span class="number">{interval}</span>}
    </>
  );
}
