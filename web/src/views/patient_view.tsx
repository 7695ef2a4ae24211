import { Notes } from "../components/explanation/notes";
import { TaskDetail } from "../components/explanation/task_detail";
import { Highlights } from "../components/patient/highlights";
import { PatientHeader } from "../components/patient/patient_header";
import { PayloadForm } from "../components/patient/payload_form";
import { PredictionsTable } from "../components/patient/predictions_table";
import { ReceiptPanel } from "../components/patient/receipt";
import { WhatIf } from "../components/patient/what_if";
import { ProblemNote } from "../components/problem_note";
import type { Answer, Known } from "../lib/api";
import { countPredictions, type Result } from "../lib/predictions";
import { type EvidenceByTask, usePrediction } from "../lib/use_prediction";
import "./patient_view.css";

/** The payload form, and the predictions for the payload with their explanations. */
export function PatientView({ known }: { known: Known }) {
  const prediction = usePrediction();
  const { result, problem, busy, send } = prediction;
  return (
    <>
      <PayloadForm send={send} busy={busy} open={!result} />
      <div role="status" class="visually-hidden">
        {busy ? "Predicting" : result ? countPredictions(result.answer) : ""}
      </div>
      {problem && <ProblemNote problem={problem} />}
      {result && <ResultView {...prediction} known={known} result={result} />}
    </>
  );
}

interface ResultViewProps {
  known: Known;
  result: Result;
  /** The answer after a what-if change. */
  changed: Answer | undefined;
  setChanged: (answer: Answer | undefined) => void;
  /** The task whose prediction is explained. */
  selected: string | undefined;
  setSelected: (task: string) => void;
  evidence: EvidenceByTask;
}

function ResultView({ known, result, changed, setChanged, selected, setSelected, evidence }: ResultViewProps) {
  const { answer, payload } = result;
  const prediction = answer.predictions.find(({ task }) => task === selected);
  const select = (task: string) => {
    setSelected(task);
    document.getElementById("detail")?.focus();
  };
  return (
    <>
      <PatientHeader result={result} />
      <Highlights answer={answer} selected={selected} select={select} />
      <div class="result">
        <PredictionsTable answer={answer} changed={changed} selected={selected} select={select} />
        <div class="side">
          {prediction && (
            <TaskDetail prediction={prediction} result={result} evidence={evidence[prediction.task]} known={known} />
          )}
          <WhatIf result={result} variables={known.variables} changed={changed} setChanged={setChanged} />
          <Notes payload={payload} evidence={(selected && evidence[selected]) || []} />
          <ReceiptPanel answer={answer} known={known} />
        </div>
      </div>
    </>
  );
}
