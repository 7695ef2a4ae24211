"""Asks the service for a prediction. Arguments: its URL, a golden request."""

import json
import sys
import urllib.request

url, request = sys.argv[1:]


def asked(path, body=None):
    headers = {"Content-Type": "application/json"}
    sent = urllib.request.Request(url + path, body, headers)
    with urllib.request.urlopen(sent, timeout=30) as answer:
        return json.load(answer)


tasks = [task["name"] for task in asked("/tasks")["tasks"]]
answer = asked("/predict", request.encode())
found = [prediction["task"] for prediction in answer["predictions"]]
if not tasks or found != tasks:
    sys.exit(f"it predicts {found}, not {tasks}")
model = answer["model"]
print(f"{model['name']} {model['version']} predicts {len(found)} tasks")
