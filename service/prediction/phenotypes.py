"""Describes the phenotypes of a bundle (clusters of patients) in words."""

from schemas.manifest import Manifest, Phenotype

# Smaller differences are not described: in standard deviations, and of a ratio from 1.
MIN_DIFFERENCE = 0.2


def describe_phenotypes(manifest: Manifest) -> dict[int, str]:
    """The description of each cluster, by its number."""
    return {phenotype.cluster: _describe(phenotype, manifest) for phenotype in manifest.phenotypes}


def _describe(phenotype: Phenotype, manifest: Manifest) -> str:
    if not phenotype.share:
        return "none of the patients that the phenotypes were described with"
    variables = {variable.name: variable.display for variable in manifest.spec.variables}
    tasks = {task.task.name: task.task.display for task in manifest.tasks}
    differences = [
        f"{'high' if spreads > 0 else 'low'} {_lower_first(variables[name])}"
        for name, spreads in phenotype.distinguished_by.items()
        if abs(spreads) >= MIN_DIFFERENCE
    ]
    differences += [
        f"{ratio:.2g} times as often {_lower_first(tasks[name])}"
        for name, ratio in phenotype.more_often.items()
        if abs(ratio - 1) >= MIN_DIFFERENCE
    ]
    share = f"{phenotype.share * 100:.0f} % of the patients"
    # Semicolons, because some names contain commas.
    return "; ".join([share, *(differences or ["like the average patient"])])


def _lower_first(name: str) -> str:
    """A name inside a sentence. One with other capitals (pH, Glasgow Coma Scale) is unchanged."""
    return name[0].lower() + name[1:] if name[1:2].islower() and name[1:].islower() else name
