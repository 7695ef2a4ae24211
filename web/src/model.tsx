import type { Known } from "./app";

export function ModelView(_: { known: Known; of?: string | undefined }) {
  return <p>to come</p>;
}
