"""Descriptions of the phenotypes."""

from schemas.manifest import Phenotype
from service.prediction.phenotypes import describe_phenotypes


def test_a_phenotype_has_the_description_of_the_bundle(service, bundle, payload):
    (prediction,) = (
        p for p in service.predict(payload)["predictions"] if p["kind"] == "clustering"
    )
    words = describe_phenotypes(bundle.manifest)
    assert prediction["description"] == words[prediction["cluster"]]


def test_a_phenotype_is_described_by_its_variables_and_tasks(bundle):
    distinct = Phenotype(
        cluster=2,
        share=0.123,
        distinguished_by={"creatinine": 1.74, "ph": -0.6, "sodium": 0.1},
        more_often={"chronic_kidney_disease": 1.84, "sepsis": 0.5, "asthma": 1.1},
    )
    plain = Phenotype(cluster=3, share=0.5, distinguished_by={"sodium": 0.0})
    empty = Phenotype(cluster=4, share=0, distinguished_by={"sodium": 0.0})
    manifest = bundle.manifest.model_copy(update={"phenotypes": (distinct, plain, empty)})
    assert describe_phenotypes(manifest) == {
        2: "12 % of the patients; high creatinine; low Blood pH; "
        "1.8 times as often chronic kidney disease; 0.5 times as often sepsis",
        3: "50 % of the patients; like the average patient",
        4: "none of the patients that the phenotypes were described with",
    }
