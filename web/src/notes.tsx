import type { Part, Payload } from "./api";
import { before, points } from "./numbers";

type Passage = Extract<Part, { kind: "note" }>;

/** The notes, with the passages that the chosen number rests on. */
export function NotesRead({ payload, because }: { payload: Payload; because: Part[] }) {
  const passages = because.filter((part): part is Passage => part.kind === "note");
  if (!payload.notes?.length) return null;
  return (
    <section class="panel notes print-hidden">
      <h2>Notes</h2>
      {passages.length === 0 && <p class="small quiet">No passage is among what the chosen number rests on most.</p>}
      {payload.notes.map((note, i) => (
        <article key={i}>
          <h3>
            {note.kind ?? "note"} <span class="quiet">{before(payload.as_of, note.time)}</span>
          </h3>
          <p class="text">{marked(note.text, passages.filter((one) => one.pointers.includes(`/notes/${i}/text`)))}</p>
        </article>
      ))}
    </section>
  );
}

/** Places in a text are counted in characters (code points), as Python counts them. */
function marked(text: string, passages: Passage[]) {
  const characters = [...text];
  const found = [];
  let end = 0;
  // Without a place, a passage is the whole note.
  const placed = passages.map((one) => ({ ...one, start: one.start ?? 0, end: one.end ?? characters.length }));
  for (const one of placed.toSorted((a, b) => a.start - b.start)) {
    found.push(characters.slice(end, one.start).join(""));
    found.push(
      <mark class={one.contribution > 0 ? "more" : "less"}>
        {characters.slice(one.start, one.end).join("")}
        <sup>{points(one.contribution)}</sup>
      </mark>,
    );
    end = one.end;
  }
  found.push(characters.slice(end).join(""));
  return found;
}
