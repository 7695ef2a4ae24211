import type { Evidence, Payload } from "../../lib/api";
import { isPassage, type NoteSegment, splitAtPassages } from "../../lib/note_passages";
import { points, timeBefore } from "../../lib/numbers";
import "./notes.css";

/** The notes of the payload. The passages that contribute to the selected prediction are marked. */
export function Notes({ payload, evidence }: { payload: Payload; evidence: Evidence[] }) {
  const passages = evidence.filter(isPassage);
  if (!payload.notes?.length) return null;
  return (
    <section class="panel notes print-hidden">
      <h2>Notes</h2>
      {passages.length === 0 && (
        <p class="small muted">No passage is among the most important inputs of the selected prediction.</p>
      )}
      {payload.notes.map((note, i) => {
        const inThisNote = passages.filter((passage) => passage.pointers.includes(`/notes/${i}/text`));
        return (
          <article key={i}>
            <h3>
              {note.kind ?? "note"} <span class="muted">{timeBefore(payload.as_of, note.time)}</span>
            </h3>
            <p class="text">{splitAtPassages(note.text, inThisNote).map(renderSegment)}</p>
          </article>
        );
      })}
    </section>
  );
}

function renderSegment({ text, contribution }: NoteSegment) {
  if (contribution === undefined) return text;
  return (
    <mark class={contribution > 0 ? "more" : "less"}>
      {text}
      <sup>{points(contribution)}</sup>
    </mark>
  );
}
