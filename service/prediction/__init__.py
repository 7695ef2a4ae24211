"""From a request to its answer: admission, batching, prediction, attribution, response."""
