// The evaluation in the model's manifest (`docs/results.json` of `m3h-model evaluate`), as far as the page shows it.
import type { Estimate } from "./estimates";
import { decimal, signed } from "./numbers";

/** Each part may be missing. `measured`: vital signs, laboratory values, demographics. `all`: all inputs. */
export interface Evaluation {
  measured?: RankingResults;
  all?: RankingResults;
  measured_external?: RankingResults;
  all_external?: RankingResults;
  acting?: CalibrationResults;
  groups?: Record<string, Record<string, SubgroupResults>>;
  landmarks?: Record<string, LandmarkResults>;
  recalibration?: RecalibrationResults;
}

/** How well each model ranks patients. */
export interface RankingResults {
  stays: number;
  tasks: number;
  fewest_positives: number;
  /** The number of patients with the disease, by task. */
  positives?: Record<string, number>;
  models: Record<string, ModelRanking>;
}

interface ModelRanking {
  auroc: Estimate;
  by_task: Record<string, number | Estimate>;
  m3h_ahead_by?: Estimate;
  /** One network of M3H is ahead of this single model by. */
  one_network_ahead_by?: Estimate;
  change?: Estimate;
}

export interface CalibrationResults {
  tasks: number;
  calibration: Record<string, number | null>;
  coverage: Record<string, number | null>;
  curve?: CalibrationCurve;
  measured?: CalibrationResults;
}

/** The mean predicted and the observed frequency of each bin. */
export interface CalibrationCurve {
  predicted: number[];
  observed: number[];
}

export interface SubgroupResults {
  stays: number;
  tasks: number;
  small?: boolean;
  auroc?: Estimate;
  against_everyone?: Estimate;
  observed_to_expected?: Estimate;
}

export type LandmarkResults = SubgroupResults & { models: Record<string, Estimate> };

export interface RecalibrationResults {
  patients: number;
  splits: number;
  before: Record<string, Estimate>;
  after: Record<string, Estimate>;
}

export const INPUT_TITLES = {
  measured: "Vital signs, laboratory values, demographics",
  all: "All inputs (with treatments and notes)",
};

/** The calibration measures, by their key in the results. */
export const CALIBRATION_LABELS: Record<string, string> = {
  slope: "slope (ideal: 1)",
  intercept: "intercept (ideal: 0)",
  brier_skill: "Brier skill (0: as good as the prevalence)",
  calibration_error: "calibration error, ten bins",
  noise_floor: "calibration error expected by chance",
};

export const NOT_MEASURED = "not measured";
export const OBSERVED_TO_EXPECTED = "observed / expected";

export const threeDecimals = (value: number) => decimal(value, 3);
export const signedThreeDecimals = (value: number) => signed(value, 3);
export const twoDecimals = (value: number) => decimal(value, 2);
