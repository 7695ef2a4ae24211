"""Plain FastAPI: the model runs in the server process, without batching."""

from fastapi import FastAPI, Request, Response
from reference_model import Model

app = FastAPI()
model = Model()


@app.post("/predict")
async def predict(request: Request) -> Response:
    return Response(model.answer(await request.body()), media_type="application/json")
