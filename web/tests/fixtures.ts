import type { Prediction, Task, Tim, Variable } from "../src/lib/api";

const CARDIOLOGY = "Cardiology";
const INFECTIONS = "Infectious disease";

/** A matrix of four tasks. Rows and columns 0 and 2 are alike, and so are 1 and 3. */
export const tim = {
  tasks: ["sepsis", "heart_failure", "pneumonia", "atrial_fibrillation"],
  sources: ["sepsis", "heart_failure", "pneumonia", "atrial_fibrillation"],
  metric: ["AUROC", "AUROC", "AUROC", "AUROC"],
  matrix: [
    [null, -0.02, 0.05, -0.02],
    [0.01, null, 0.01, 0.03],
    [0.06, -0.02, null, -0.02],
    [0.01, 0.03, 0.01, null],
  ],
  lower: [
    [null, -0.03, 0.01, -0.03],
    [-0.01, null, -0.01, 0.02],
    [0.01, -0.03, null, -0.03],
    [-0.01, 0.02, -0.01, null],
  ],
  upper: [
    [null, 0.01, 0.09, 0.01],
    [0.03, null, 0.03, 0.04],
    [0.09, 0.01, null, 0.01],
    [0.03, 0.04, 0.03, null],
  ],
  certain: [
    [false, false, true, false],
    [false, false, false, false],
    [false, false, false, false],
    [false, false, false, false],
  ],
  mean_attention: [
    [0.4, 0.1, 0.3, 0.2],
    [0.1, 0.6, 0.1, 0.2],
    [0.3, 0.1, 0.5, 0.1],
    [0.1, 0.2, 0.1, 0.6],
  ],
} as unknown as Tim;

export const tasks = [
  { name: "sepsis", display: "Sepsis", department: INFECTIONS },
  { name: "heart_failure", display: "Heart failure", department: CARDIOLOGY },
  { name: "pneumonia", display: "Pneumonia", department: INFECTIONS },
  { name: "atrial_fibrillation", display: "Atrial fibrillation", department: CARDIOLOGY },
] as Task[];

export const variables = [
  { name: "heart_rate", display: "Heart rate", units: ["/min"], plausible: [20, 300], loinc: ["8867-4"] },
  { name: "creatinine", display: "Creatinine", units: ["mg/dL", "umol/L"], plausible: [0.1, 30], loinc: ["2160-0"] },
] as unknown as Variable[];

export function probability(task: string, value: number, prevalence: number, department = ""): Prediction {
  return { task, display: task, department, probability: value, prevalence } as Prediction;
}
