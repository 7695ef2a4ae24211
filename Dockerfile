# Three images: make image, make image TARGET=cpu, make image TARGET=train.
#   gpu    serves on a GPU; falls back to the CPU   2.7 GB   m3h:VERSION
#   cpu    serves on the CPU                        0.6 GB   m3h:VERSION-cpu
#   train  trains and exports, with torch                    m3h-train:VERSION
#
# Options of the builder, after scripts/image TARGET:
#   --build-arg PYTHON_DIGEST=@sha256:…   digest of the base image; required with RELEASE=yes, because a tag
#                                         can move to another image
#   --build-arg BUNDLE=bundles/local      bundle to put into the image; a mounted bundle needs no new image
#   --secret id=pip.conf,src=FILE         configuration of pip; the file does not stay in the image
#   --build-arg TORCH=torch==2.13.0+cpu   build of torch, if the package index has several
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG PYTHON_DIGEST=
ARG BUNDLE=bundles/m3h-open

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST} AS python
ENV PATH=/app/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app

# ------------------------------------------------------------------------------------ build stages

FROM python AS pip
# Reproducible bytecode that does not depend on file times.
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

# Packages have a layer of their own, which stays cached when the code changes.

FROM pip AS cpu-packages
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    sed -i 's/^onnxruntime-gpu/onnxruntime/' serve.txt \
    && /pip/bin/pip install --constraint constraints.txt --requirement serve.txt \
    && find /app/venv -type d -name tests -prune -exec rm -r {} +

# CUDA 13.0 and cuDNN 9 (drivers from 580) come as wheels: the extras of onnxruntime-gpu, in the versions
# that torch uses. The service loads them from there. NVIDIA's base image would add unused libraries and
# another Python.
FROM pip AS gpu-packages
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    sed -i 's/^onnxruntime-gpu/&[cuda,cudnn]/' serve.txt \
    && /pip/bin/pip install --constraint constraints.txt --requirement serve.txt \
    && find /app/venv -type d -name tests -prune -exec rm -r {} +

# The package index decides the build of torch. PyPI's build for Linux brings CUDA 13, which ONNX Runtime shares.
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
# Any user can read all files and write none, whatever the permissions of the checkout.
RUN chmod -R a+rX,go-w /app

# ------------------------------------------------------------------------------------------ images

FROM python AS image
ARG VERSION=
LABEL org.opencontainers.image.title="M3H" \
      org.opencontainers.image.description="Forty-four medical tasks from whatever a hospital knows of a patient" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# The image runs as any user; only /tmp must be writable. ONNX Runtime sends telemetry about each start,
# machine and model unless it is disabled.
ENV HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1
USER 10001

FROM image AS train
# NVIDIA_VISIBLE_DEVICES is unset: whoever runs the container selects its GPUs; the default is none.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
# LightGBM needs OpenMP from the system. The base's Debian release has a single version of it.
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
# Set another port by M3H_PORT: the health check does not see --port. http.client ignores proxy settings.
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
