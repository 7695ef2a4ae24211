import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import type { Known } from "./app";
import { Detail } from "./detail";
import { Intake } from "./intake";
import { NotesRead } from "./notes";
import { percent } from "./numbers";
import "./patient.css";
import { Predictions } from "./predictions";
import { ProblemNote } from "./problem";
import { ReceiptPanel } from "./receipt";
import { WhatIf } from "./what_if";

/** What was sent, and what came back. */
export interface Visit {
  body: string;
  payload: api.Payload;
  answer: api.Answer;
}

/** Only the latest request is awaited: an answer that comes after another was asked for is not shown. */
function useLatest(): (ask: (signal: AbortSignal) => Promise<void>) => Promise<void> {
  const running = useRef<AbortController>(undefined);
  return async (ask) => {
    running.current?.abort();
    const mine = new AbortController();
    running.current = mine;
    try {
      await ask(mine.signal);
    } catch (error) {
      if (!mine.signal.aborted) throw error;
    }
  };
}

export function Patient({ known }: { known: Known }) {
  const [visit, open] = useState<Visit>();
  const [problem, fail] = useState<api.Problem>();
  const [busy, wait] = useState(false);
  const [chosen, choose] = useState<string>();
  const [reasons, know] = useState<Record<string, api.Part[]>>({});
  const [changed, change] = useState<api.Answer>();
  const latest = useLatest();
  const latestReasons = useLatest();

  const told = (error: unknown) => {
    if (!(error instanceof api.Refused)) throw error;
    fail(error.problem);
  };

  const send = (body: string) => {
    wait(true);
    void latest(async (signal) => {
      try {
        const answer = await api.predict(body, { explain: "full" }, signal);
        const because = answer.explanation?.variables ?? [];
        open({ body, payload: JSON.parse(body), answer });
        know(Object.fromEntries(because.map((one) => [one.task, one.because])));
        choose(because[0]?.task ?? answer.predictions[0]?.task);
        change(undefined);
        fail(undefined);
      } catch (error) {
        if (!signal.aborted) {
          open(undefined);
          told(error);
        }
      } finally {
        if (!signal.aborted) wait(false);
      }
    });
  };

  const prediction = visit?.answer.predictions.find((one) => one.task === chosen);
  const hasReasons = chosen !== undefined && chosen in reasons;
  useEffect(() => {
    if (!visit || !prediction || hasReasons || !hasOneNumber(prediction)) return;
    void latestReasons(async (signal) => {
      const answer = await api.predict(visit.body, { explain: "full", task: prediction.task }, signal);
      const because = answer.explanation?.variables?.[0]?.because ?? [];
      know((all) => ({ ...all, [prediction.task]: because }));
    }).catch(told);
  }, [visit, prediction, hasReasons]);

  const show = (task: string) => {
    choose(task);
    document.getElementById("detail")?.focus();
  };

  return (
    <>
      <Intake send={send} busy={busy} open={!visit} />
      <div role="status" class="unseen">
        {busy ? "Predicting" : visit ? `${visit.answer.predictions.length} predictions` : ""}
      </div>
      {problem && <ProblemNote problem={problem} />}
      {visit && (
        <>
          <Sent visit={visit} />
          <StandOut answer={visit.answer} chosen={chosen} choose={show} />
          <div class="visit">
            <Predictions answer={visit.answer} changed={changed} chosen={chosen} choose={show} />
            <div class="beside">
              {prediction && (
                <Detail
                  prediction={prediction}
                  visit={visit}
                  because={reasons[prediction.task]}
                  known={known}
                />
              )}
              <WhatIf visit={visit} variables={known.variables} changed={changed} change={change} />
              <NotesRead payload={visit.payload} because={(chosen && reasons[chosen]) || []} />
              <ReceiptPanel answer={visit.answer} known={known} />
            </div>
          </div>
        </>
      )}
    </>
  );
}

/** Parts of a request are named for numbers, not for a choice of classes (docs/explanations.md). */
export function hasOneNumber(prediction: api.Prediction): boolean {
  return prediction.probability != null || prediction.value != null;
}

function Sent({ visit: { payload, answer } }: { visit: Visit }) {
  const { modalities, warnings } = answer.receipt;
  return (
    <section class="sent" aria-label="What was sent">
      <h1>
        {payload.patient_id ? `Patient ${payload.patient_id}` : "Patient"}{" "}
        <span class="quiet">as of {payload.as_of}</span>
      </h1>
      <ul class="row chips">
        {api.MODALITIES.map(([name, title]) => {
          const use = modalities[name];
          return (
            <li key={name} class={`chip ${use?.status ?? "absent"}`}>
              {title}: {use?.status ?? "absent"}
              {use?.unusual != null && (
                <span class="quiet"> · more unusual than {percent(use.unusual)} of the training patients</span>
              )}
            </li>
          );
        })}
        <li class="print-hidden">
          <button onClick={() => print()}>Print on one page</button>
        </li>
      </ul>
      {!!warnings?.length && (
        <ul class="problem">
          {warnings.map((warning) => (
            <li key={warning}>{warning}</li>
          ))}
        </ul>
      )}
    </section>
  );
}

/** The tasks that the service gave its reasons for: the three furthest from their prevalence. */
function StandOut(props: {
  answer: api.Answer;
  chosen: string | undefined;
  choose: (task: string) => void;
}) {
  const named = props.answer.explanation?.variables ?? [];
  if (!named.length) return null;
  return (
    <section class="stand-out" aria-label="Stands out">
      <h2>
        Stands out <span class="quiet small">furthest from what is usual in the training cohort</span>
      </h2>
      <div class="cards">
        {named.map(({ task, because }) => {
          const one = props.answer.predictions.find((prediction) => prediction.task === task);
          if (one?.probability == null) return null;
          return (
            <button key={task} class="card" aria-pressed={task === props.chosen} onClick={() => props.choose(task)}>
              <span class="card-name">{one.display}</span>
              <span class="card-number">{percent(one.probability)}</span>
              <span class="quiet small">
                {one.prevalence != null && `of all: ${percent(one.prevalence)}. `}
                {because.length > 0 && `Rests on ${because.slice(0, 3).map((part) => part.display.toLowerCase()).join(", ")}.`}
              </span>
            </button>
          );
        })}
      </div>
    </section>
  );
}
