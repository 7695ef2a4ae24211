// Predictions: their order, their classes, and differences between two answers.
import type { Answer, Payload, Prediction, Receipt } from "./api";
import { spaced } from "./numbers";

/** A payload and the service's answer to it. `body` is the payload as it was sent. */
export interface Result {
  body: string;
  payload: Payload;
  answer: Answer;
}

/** The variables and treatments that were read: those with influence, and the names of those without. */
export function splitByInfluence({ used = [], treatments = [], not_learned }: Receipt) {
  const { variables = [], treatments: courses = [] } = not_learned ?? {};
  return {
    used: used.filter(({ variable }) => !variables.includes(variable)),
    treatments: treatments.filter((treatment) => !courses.includes(treatment)),
    notLearned: [...variables, ...courses],
  };
}

/** How many tasks have a prediction, and how many abstain, in words. */
export function countPredictions({ predictions }: Answer): string {
  const abstaining = predictions.filter(({ abstained }) => abstained).length;
  const count = `${predictions.length - abstaining} predictions`;
  return abstaining ? `${count}, ${abstaining} ${abstaining === 1 ? "task abstains" : "tasks abstain"}` : count;
}

/** True for a probability or a value; false for probabilities of several classes. */
export function hasSingleNumber(prediction: Prediction): boolean {
  return prediction.probability != null || prediction.value != null;
}

/** The classes with their probabilities, the most probable first. */
export function rankedClasses(prediction: Prediction): [name: string, probability: number][] {
  return Object.entries(prediction.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
}

/** The label of a class; a class of the phenotype clustering is a number. */
export function classLabel(name: string): string {
  return /^\d+$/.test(name) ? `group ${name}` : spaced(name);
}

export interface PredictionGroup {
  /** The department; empty if the predictions are not grouped. */
  title: string;
  predictions: Prediction[];
}

export function groupByDepartment(predictions: Prediction[]): PredictionGroup[] {
  const groups = Map.groupBy(predictions, (prediction) => prediction.department);
  return [...groups].map(([title, members]) => ({ title, predictions: members }));
}

/** One group, sorted by |probability − prevalence|, the measure by which the service selects tasks to explain. */
export function sortByDistance(predictions: Prediction[]): PredictionGroup[] {
  const distance = ({ probability, prevalence }: Prediction) =>
    probability == null || prevalence == null ? -1 : Math.abs(probability - prevalence);
  return [{ title: "", predictions: predictions.toSorted((a, b) => distance(b) - distance(a)) }];
}

const SMALLEST_SHOWN_CHANGE = 0.001;

/** The new probability, or undefined if it differs by less than a tenth of a percentage point. */
export function visibleChange(before: number, after: number | null | undefined): number | undefined {
  return after != null && Math.abs(after - before) >= SMALLEST_SHOWN_CHANGE ? after : undefined;
}

export interface ProbabilityChange {
  prediction: Prediction;
  before: number;
  after: number;
}

/** The `limit` largest changes of a probability; changes that round to 0.0 points are left out. */
export function largestChanges(before: Answer, after: Answer, limit: number): ProbabilityChange[] {
  const changed = new Map(after.predictions.map((prediction) => [prediction.task, prediction.probability]));
  return before.predictions
    .flatMap((prediction) => {
      const probability = changed.get(prediction.task);
      if (prediction.probability == null || probability == null) return [];
      return [{ prediction, before: prediction.probability, after: probability }];
    })
    .filter((change) => Math.abs(change.after - change.before) >= 0.0005)
    .sort((a, b) => Math.abs(b.after - b.before) - Math.abs(a.after - a.before))
    .slice(0, limit);
}
