# Three images: make image, make image TARGET=cpu, make image TARGET=train.
#   gpu    serves on a GPU, or on processors where there is none   2.6 GB   m3h:VERSION
#   cpu    serves on processors                                    0.5 GB   m3h:VERSION-cpu
#   train  learns and exports, with torch                                   m3h-train:VERSION
#
# What the builder can be told, after scripts/image TARGET:
#   --build-arg PYTHON_DIGEST=@sha256:…   which base; RELEASE=yes scripts/image insists on it, since what a
#                                         tag names changes
#   --build-arg BUNDLE=bundles/local      which bundle is in the image; one that is mounted needs no other image
#   --secret id=pip.conf,src=FILE         where pip finds packages; nothing of the file stays in the image
#   --build-arg TORCH=torch==2.13.0+cpu   which build of torch, where pip finds several
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG PYTHON_DIGEST=
ARG BUNDLE=bundles/m3h-open

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST} AS python
ENV PATH=/app/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app

# ------------------------------------------------------------------------------------ what is built

FROM python AS pip
# Bytecode that holds whatever the files' times are, and is the same in each build.
ENV SOURCE_DATE_EPOCH=315532800 \
    PYTHONHASHSEED=0 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_PYTHON=/app/venv/bin/python \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python3 -m venv /pip && python3 -m venv --without-pip /app/venv
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
open('serve.txt', 'w').write('\n'.join(project['dependencies'])); \
open('train.txt', 'w').write('\n'.join(project['optional-dependencies']['train']))"

# The packages that an image needs come in a layer of their own: it stays when the code changes.

FROM pip AS cpu-packages
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    sed -i 's/^onnxruntime-gpu/onnxruntime/' serve.txt \
    && /pip/bin/pip install --constraint constraints.txt --requirement serve.txt

# CUDA 13.0 and cuDNN 9, for drivers from 580, are the wheels that onnxruntime-gpu names in its extras and
# that the service has it load, in the versions of torch. An image of NVIDIA's would add libraries that no
# graph uses, and another Python.
FROM pip AS gpu-packages
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    sed -i 's/^onnxruntime-gpu/&[cuda,cudnn]/' serve.txt \
    && /pip/bin/pip install --constraint constraints.txt --requirement serve.txt

# Which build torch is, an index decides: PyPI's for Linux brings CUDA 13, which ONNX Runtime then has too.
FROM pip AS train-packages
ARG TORCH=
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    echo "$TORCH" > torch.txt \
    && /pip/bin/pip install --constraint constraints.txt \
    --requirement serve.txt --requirement train.txt --requirement torch.txt

FROM pip AS code
ARG BUNDLE
COPY README.md LICENSE ./
COPY schemas schemas
COPY model model
COPY export export
COPY service service
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    PIP_CONSTRAINT=constraints.txt /pip/bin/pip install --no-deps .
COPY ${BUNDLE} /app/${BUNDLE}
# Whatever the permissions were where it was built: any user reads all, and writes nothing.
RUN chmod -R a+rX,go-w /app

# --------------------------------------------------------------------------------------- the images

FROM python AS image
ARG VERSION=
LABEL org.opencontainers.image.title="M3H" \
      org.opencontainers.image.description="Forty-four medical tasks from whatever a hospital knows of a patient" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# Any user will do, and nothing but /tmp need be writable. Unless it is told not to, ONNX Runtime tells its
# makers of each start, machine and model.
ENV HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1
USER 10001

FROM image AS train
# Which GPUs it sees is for who runs it to say: none if nothing is said.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
# LightGBM brings all but OpenMP. The base's release of Debian has one version of it.
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
USER 10001
COPY --from=train-packages /app/venv /app/venv
COPY --from=code /app /app
CMD ["m3h-model", "--help"]

FROM image AS serve
ARG BUNDLE
ENV M3H_BUNDLE=/app/${BUNDLE} \
    M3H_HOST=0.0.0.0 \
    M3H_PORT=8000
EXPOSE 8000
# Another port is M3H_PORT, not --port, which the check would not know. No proxy is asked.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python3", "-c", "\
import http.client, os, sys; \
service = http.client.HTTPConnection('localhost', int(os.environ['M3H_PORT']), timeout=3); \
service.request('GET', '/health/ready'); \
sys.exit(service.getresponse().status != 200)"]
ENTRYPOINT ["m3h-serve"]

FROM serve AS cpu
COPY --from=cpu-packages /app/venv /app/venv
COPY --from=code /app /app

FROM serve AS gpu
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=gpu-packages /app/venv /app/venv
COPY --from=code /app /app
