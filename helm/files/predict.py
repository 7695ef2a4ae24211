"""Requests a prediction (`helm test`). Arguments: URL of the service, a golden request."""

import json
import sys
import urllib.request

url, golden = sys.argv[1:]


def fetch(path, body=None):
    request = urllib.request.Request(url + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


expected = [task["name"] for task in fetch("/tasks")["tasks"]]
answer = fetch("/predict", golden.encode())
predicted = [prediction["task"] for prediction in answer["predictions"]]
if not expected or predicted != expected:
    sys.exit(f"the service predicts the tasks {predicted}, expected {expected}")
model = answer["model"]
print(f"{model['name']} {model['version']} predicts {len(predicted)} tasks")
