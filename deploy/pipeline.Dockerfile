# syntax=docker/dockerfile:1
# All of maasflow: what runs recipes, and the servers of Prefect and MLflow in the versions that are tested with it (about 3 GB).
#
#   docker build --file deploy/pipeline.Dockerfile --tag maasflow-pipeline:0.1.0 .
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ARG RUNTIME=onnxruntime
WORKDIR /build
RUN python -m venv --without-pip /opt/maasflow
COPY pyproject.toml constraints.txt deploy/requirements.py ./
# psycopg2 and boto3 are for MLflow's server alone: its database, and its artifacts in MinIO.
RUN python requirements.py "$RUNTIME" serve pipeline > requirements.txt \
    && pip --python /opt/maasflow/bin/python install --no-cache-dir --constraint constraints.txt --requirement requirements.txt \
       psycopg2-binary==2.9.11 boto3==1.41.5
COPY . .
RUN pip --python /opt/maasflow/bin/python install --no-cache-dir --no-deps .

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="maasflow pipeline" org.opencontainers.image.licenses="Apache-2.0"
# DVC and the lineage of a release ask git.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/maasflow /opt/maasflow
ENV PATH=/opt/maasflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/workspace \
    MAASFLOW_WORKSPACE=/workspace \
    DO_NOT_TRACK=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
RUN install --directory --owner=10001 --group=10001 /workspace
WORKDIR /workspace
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["maasflow", "--help"]
