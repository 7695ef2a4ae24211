import { useEffect, useRef, useState } from "preact/hooks";
import { fetchExample, ProblemError } from "../../lib/api";
import "./payload_form.css";

const EXAMPLES = {
  septic_shock: "Septic shock",
  heart_failure: "Heart failure",
  vitals_only: "Vital signs only",
  chest_xray_only: "Chest X-ray only",
  minimal: "Age and sex only",
};

interface PayloadFormProps {
  /** Sends a payload unchanged; the service validates it. */
  send: (body: string) => void;
  busy: boolean;
  open: boolean;
}

/** A form that takes a payload: dropped, pasted, from a file, or an example. */
export function PayloadForm({ send, busy, open }: PayloadFormProps) {
  const [text, setText] = useState("");
  const [error, setError] = useState("");
  const details = useRef<HTMLDetailsElement>(null);

  useEffect(() => {
    if (details.current) details.current.open = open;
  }, [open]);

  const sendContent = async (content: Promise<string>) => {
    try {
      const body = await content;
      setError("");
      setText(body);
      send(body);
    } catch (reason) {
      setError(reason instanceof ProblemError ? reason.problem.detail : "The file could not be read.");
    }
  };
  const [dragging, dropHandlers] = useDropTarget(sendContent);

  return (
    <details ref={details} class={`panel payload-form ${dragging ? "dragging" : ""}`} open {...dropHandlers}>
      <summary>
        <h2>Patient data</h2>
      </summary>
      <p>
        Drop a payload here, paste it, or select an example; all examples are synthetic. The page sends it only to this
        service. The service does not store it, and no log contains its values.
      </p>
      <div class="row">
        {Object.entries(EXAMPLES).map(([name, title]) => (
          <button type="button" key={name} disabled={busy} onClick={() => void sendContent(fetchExample(name))}>
            {title}
          </button>
        ))}
      </div>
      <PayloadText text={text} setText={setText} />
      <div class="row">
        <button type="button" class="main" disabled={busy || !text.trim()} onClick={() => send(text)}>
          Predict
        </button>
        <FileInput select={(file) => void sendContent(file.text())} />
      </div>
      {error && <p role="alert">{error}</p>}
    </details>
  );
}

/** Drag-and-drop handlers that pass on a dropped file or text. `dragging` is true while it is over the target. */
function useDropTarget(receive: (content: Promise<string>) => void) {
  const [dragging, setDragging] = useState(false);
  const handlers = {
    onDragOver: (event: DragEvent) => {
      event.preventDefault();
      setDragging(true);
    },
    onDragLeave: () => setDragging(false),
    onDrop: (event: DragEvent) => {
      event.preventDefault();
      setDragging(false);
      const file = event.dataTransfer?.files[0];
      const text = event.dataTransfer?.getData("text/plain");
      if (file) receive(file.text());
      else if (text) receive(Promise.resolve(text));
    },
  };
  return [dragging, handlers] as const;
}

function PayloadText({ text, setText }: { text: string; setText: (text: string) => void }) {
  return (
    <>
      <label for="payload" class="visually-hidden">
        Payload, as JSON
      </label>
      <textarea
        id="payload"
        rows={7}
        spellcheck={false}
        autocomplete="off"
        placeholder='{"as_of": "2026-11-23T10:00:00Z", "tabular": {"age": 71}, "series": [ … ]}'
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
      />
    </>
  );
}

function FileInput({ select }: { select: (file: File) => void }) {
  return (
    <label>
      or a file{" "}
      <input
        type="file"
        accept=".json,application/json"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          if (file) select(file);
          event.currentTarget.value = "";
        }}
      />
    </label>
  );
}
