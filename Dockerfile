# The image of every node, of the submitter and of MLflow.
#
#   docker build --target cpu  --build-arg BASE=python:3.11-slim-bookworm@sha256:... -t mien:cpu .
#   docker build --target cuda --build-arg BASE=python:3.11-slim-bookworm@sha256:... -t mien:cuda .
#
# BASE is an argument so that it is named by its digest: the same build, the same system. torch's
# wheels bring CUDA's libraries along; the node brings the driver.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 \
    RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
# wget, procps: KubeRay's probes and `ray start` use them; rsync: `ray up`.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git procps rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 mien && useradd --uid 1000 --gid 1000 --home-dir /var/lib/mien --create-home mien
WORKDIR /opt/mien

FROM base AS build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY platform platform
COPY models models
COPY jobs jobs
# psycopg: MLflow's PostgreSQL.
ARG EXTRAS=s3,synth

FROM build AS cpu
# Where torch's CPU wheels are: an argument of the build, as every site has its own mirror.
ARG TORCH_INDEX_OPTION=""
RUN pip install ${TORCH_INDEX_OPTION} --constraint constraints.txt torch \
    && pip install --constraint constraints.txt ".[${EXTRAS}]" "psycopg[binary]"
USER 1000:1000
CMD ["mien", "--help"]

FROM build AS cuda
RUN pip install --constraint constraints.txt ".[${EXTRAS}]" "psycopg[binary]"
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER 1000:1000
CMD ["mien", "--help"]
