// Passages of notes that a prediction is based on.
import type { Evidence } from "./api";

export type Passage = Extract<Evidence, { kind: "note" }>;

/** A piece of a note: plain text, or a passage with its contribution. */
export interface NoteSegment {
  text: string;
  contribution?: number;
}

export function isPassage(evidence: Evidence): evidence is Passage {
  return evidence.kind === "note";
}

/** The characters from `start` to `end`. Offsets count code points, as in Python, not UTF-16 units. */
export function sliceCharacters(text: string, start: number, end: number): string {
  return [...text].slice(start, end).join("");
}

/** Splits a note at its passages. A passage without offsets covers the whole note. */
export function splitAtPassages(text: string, passages: Passage[]): NoteSegment[] {
  const segments: NoteSegment[] = [];
  const length = [...text].length;
  const located = passages.map(({ contribution, start, end }) => ({
    contribution,
    start: start ?? 0,
    end: end ?? length,
  }));
  let position = 0;
  for (const { contribution, start, end } of located.toSorted((a, b) => a.start - b.start)) {
    segments.push({ text: sliceCharacters(text, position, start) });
    segments.push({ text: sliceCharacters(text, start, end), contribution });
    position = end;
  }
  segments.push({ text: sliceCharacters(text, position, length) });
  return segments;
}
