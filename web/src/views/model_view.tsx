import { EvaluationPanels } from "../components/model/evaluation";
import { ModelCard } from "../components/model/model_card";
import { ModelFacts } from "../components/model/model_facts";
import { UsagePanel } from "../components/model/usage";
import type { Known } from "../lib/api";
import type { Evaluation } from "../lib/evaluation";
import "./model_view.css";

/** The model: facts, evaluation, usage counters and model card. */
export function ModelView({ known }: { known: Known }) {
  const { model } = known;
  return (
    <div class="model">
      <h1>
        {model.name} {model.version}
      </h1>
      <ModelFacts known={known} />
      <EvaluationPanels known={known} evaluation={model.evaluation as Evaluation} />
      <UsagePanel known={known} />
      <ModelCard />
    </div>
  );
}
