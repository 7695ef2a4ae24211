import type { Known } from "./app";

export function Network(_: { known: Known; of?: string | undefined }) {
  return <p>to come</p>;
}
