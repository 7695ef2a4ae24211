import type { Problem } from "../lib/api";

/** An error of the service (RFC 9457). Its text never contains a value of the request. */
export function ProblemNote({ problem }: { problem: Problem }) {
  return (
    <div class="problem" role="alert">
      <h2>{problem.title}</h2>
      <p>{problem.detail}</p>
      {!!problem.errors?.length && (
        <ul>
          {problem.errors.map((error, i) => (
            <li key={i}>
              <code>{error.pointer || error.parameter || "whole request"}</code> {error.detail}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
