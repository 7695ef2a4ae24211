import { expect, test } from "vitest";
import { type Passage, splitAtPassages } from "../src/lib/note_passages";

const passage = (contribution: number, start?: number, end?: number) => ({ contribution, start, end }) as Passage;

test("a note is split at its passages, in the order of the text", () => {
  const segments = splitAtPassages("Known COPD on oxygen.", [passage(-0.1, 14, 20), passage(0.2, 6, 10)]);
  expect(segments).toEqual([
    { text: "Known " },
    { text: "COPD", contribution: 0.2 },
    { text: " on " },
    { text: "oxygen", contribution: -0.1 },
    { text: "." },
  ]);
});

test("offsets count characters, not UTF-16 units", () => {
  expect(splitAtPassages("🫁🫁 COPD", [passage(0.2, 3, 7)])[1]).toEqual({ text: "COPD", contribution: 0.2 });
});

test("a passage without offsets covers the whole note", () => {
  const segments = splitAtPassages("Fever.", [passage(0.1)]);
  expect(segments.filter(({ text }) => text)).toEqual([{ text: "Fever.", contribution: 0.1 }]);
});
