import { formatEffect } from "../../lib/tim_cells";

/** The colour scale and the shapes of the heatmap. `limit` is the effect with the full colour. */
export function HeatmapLegend({ limit }: { limit: number }) {
  return (
    <div class="legend">
      <span class="scale">
        <span class="number">≤ {formatEffect(-limit)}</span> <span class="ramp" aria-hidden="true" />{" "}
        <span class="number">≥ {formatEffect(limit)}</span>
      </span>
      <span>
        <span class="sample more includes-zero" aria-hidden="true" /> small: the interval includes 0
      </span>
      <span>
        <span class="sample more excludes-zero" aria-hidden="true" /> full: the interval excludes 0
      </span>
      <span>
        <span class="sample more certain" aria-hidden="true" /> outlined: certain
      </span>
    </div>
  );
}
