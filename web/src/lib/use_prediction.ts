// Hooks that hold the state of the patient view.
import { useEffect, useRef, useState } from "preact/hooks";
import { type Answer, type Evidence, type Problem, ProblemError, predict } from "./api";
import { hasSingleNumber, type Result } from "./predictions";

export type EvidenceByTask = Record<string, Evidence[]>;

/** Sends payloads and keeps the result, the problem, the selected task and its evidence. */
export function usePrediction() {
  const [result, setResult] = useState<Result>();
  const [changed, setChanged] = useState<Answer>();
  const [problem, setProblem] = useState<Problem>();
  const [busy, setBusy] = useState(false);
  const [selected, setSelected] = useState<string>();
  const runLatest = useLatestRequest();

  /** Raises the error itself: if it is not a problem of the service. */
  const showProblem = (error: unknown) => {
    if (!(error instanceof ProblemError)) throw error;
    setProblem(error.problem);
  };
  const [evidence, setEvidence] = useEvidence(result, selected, showProblem);

  const send = (body: string) => {
    setBusy(true);
    void runLatest(async (signal) => {
      try {
        const answer = await predict(body, { explain: "full" }, signal);
        const explained = answer.explanation?.variables ?? [];
        setResult({ body, payload: JSON.parse(body), answer });
        setEvidence(Object.fromEntries(explained.map(({ task, because }) => [task, because])));
        setSelected(explained[0]?.task ?? answer.predictions[0]?.task);
        setChanged(undefined);
        setProblem(undefined);
      } catch (error) {
        if (!signal.aborted) {
          setResult(undefined);
          showProblem(error);
        }
      } finally {
        if (!signal.aborted) setBusy(false);
      }
    });
  };

  return { result, changed, setChanged, problem, busy, send, selected, setSelected, evidence };
}

/** The evidence by task. Evidence for the selected task is requested when it is missing. */
function useEvidence(result: Result | undefined, selected: string | undefined, showProblem: (error: unknown) => void) {
  const [evidence, setEvidence] = useState<EvidenceByTask>({});
  const runLatest = useLatestRequest();
  const prediction = result?.answer.predictions.find(({ task }) => task === selected);
  const loaded = selected !== undefined && selected in evidence;
  useEffect(() => {
    // The service gives evidence for single numbers only (docs/explanations.md).
    if (!result || !prediction || loaded || !hasSingleNumber(prediction)) return;
    const { task } = prediction;
    void runLatest(async (signal) => {
      const answer = await predict(result.body, { explain: "full", task }, signal);
      const because = answer.explanation?.variables?.[0]?.because ?? [];
      setEvidence((all) => ({ ...all, [task]: because }));
    }).catch(showProblem);
  }, [result, prediction, loaded]);
  return [evidence, setEvidence] as const;
}

type AbortableRequest = (signal: AbortSignal) => Promise<void>;

/** Runs requests. Each new request aborts the previous one, whose result is discarded. */
function useLatestRequest(): (request: AbortableRequest) => Promise<void> {
  const running = useRef<AbortController>(undefined);
  return async (request) => {
    running.current?.abort();
    const controller = new AbortController();
    running.current = controller;
    try {
      await request(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted) throw error;
    }
  };
}
