import type { Known } from "./app";

export function TimView(_: { known: Known; of?: string | undefined }) {
  return <p>to come</p>;
}
