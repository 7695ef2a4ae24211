import { useEffect, useRef, useState } from "preact/hooks";
import { example, Refused } from "./api";

const EXAMPLES = {
  septic_shock: "Septic shock",
  heart_failure: "Heart failure",
  vitals_only: "Vital signs only",
  chest_xray_only: "Chest X-ray only",
  minimal: "Age and sex only",
};

/** A payload, dropped, pasted, or an example. It goes to the service as it is: that says what is wrong. */
export function Intake(props: { send: (body: string) => void; busy: boolean; open: boolean }) {
  const [text, write] = useState("");
  const [over, hover] = useState(false);
  const [fault, tell] = useState("");
  const details = useRef<HTMLDetailsElement>(null);

  useEffect(() => {
    if (details.current) details.current.open = props.open;
  }, [props.open]);

  const take = async (reading: Promise<string>) => {
    try {
      const body = await reading;
      tell("");
      write(body);
      props.send(body);
    } catch (error) {
      tell(error instanceof Refused ? error.problem.detail : "The file could not be read.");
    }
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    hover(false);
    const file = event.dataTransfer?.files[0];
    const pasted = event.dataTransfer?.getData("text/plain");
    if (file) void take(file.text());
    else if (pasted) void take(Promise.resolve(pasted));
  };

  return (
    <details
      ref={details}
      class={`panel intake ${over ? "over" : ""}`}
      open
      onDragOver={(event) => {
        event.preventDefault();
        hover(true);
      }}
      onDragLeave={() => hover(false)}
      onDrop={drop}
    >
      <summary>
        <h2>A patient</h2>
      </summary>
      <p>
        Drop a payload here, paste it, or take an example (all are synthetic). It goes to this service and nowhere
        else; it is not stored, and no value of it is written into a log.
      </p>
      <div class="row">
        {Object.entries(EXAMPLES).map(([name, title]) => (
          <button key={name} disabled={props.busy} onClick={() => void take(example(name))}>
            {title}
          </button>
        ))}
      </div>
      <label for="payload" class="unseen">
        Payload, as JSON
      </label>
      <textarea
        id="payload"
        rows={7}
        spellcheck={false}
        autocomplete="off"
        placeholder='{"as_of": "2026-11-23T10:00:00Z", "tabular": {"age": 71}, "series": [ … ]}'
        value={text}
        onInput={(event) => write(event.currentTarget.value)}
      />
      <div class="row">
        <button class="main" disabled={props.busy || !text.trim()} onClick={() => props.send(text)}>
          Predict
        </button>
        <label class="file">
          or a file <input type="file" accept=".json,application/json" onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            if (file) void take(file.text());
            event.currentTarget.value = "";
          }} />
        </label>
      </div>
      {fault && <p role="alert">{fault}</p>}
    </details>
  );
}
