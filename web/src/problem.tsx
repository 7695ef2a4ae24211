import type { Problem } from "./api";

/** What the service refused, in its own words: it never repeats a value of a request. */
export function ProblemNote({ problem }: { problem: Problem }) {
  return (
    <div class="problem" role="alert">
      <h2>{problem.title}</h2>
      <p>{problem.detail}</p>
      {!!problem.errors?.length && (
        <ul>
          {problem.errors.map((fault, i) => (
            <li key={i}>
              <code>{fault.pointer || fault.parameter || "the whole"}</code> {fault.detail}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
