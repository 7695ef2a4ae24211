import { Panel } from "../panel";

/** The message for a bundle without a task interaction matrix. */
export function NoTim({ title }: { title: string }) {
  return (
    <>
      <h1>{title}</h1>
      <Panel title="Not measured">
        <p>
          This bundle has no task interaction matrix (TIM). To add one, run <code>m3h-model tim</code> after training,
          then <code>m3h-export</code>. The README describes both.
        </p>
      </Panel>
    </>
  );
}
