# The images of the stack, one target each: platform, serving, mlflow, proxy; backup and seaweedfs for those who use it.
# Python packages come from the lock files, with hashes. pip asks the index of the build argument PIP_INDEX_URL, else its
# own default. The layers of the packages depend on the lock files alone, so a change of our code rebuilds one small layer.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 PIP_CACHE_DIR=/var/cache/pip
RUN groupadd --gid 10001 app && useradd --uid 10001 --gid app --home-dir /tmp --no-create-home app \
    && python -m venv /opt/venv
COPY --chown=root:root deploy/healthy /usr/local/bin/healthy

FROM base AS wheel
ARG PIP_INDEX_URL
COPY requirements/build.txt /requirements/
RUN --mount=type=cache,target=/var/cache/pip,sharing=locked pip install --quiet --require-hashes -r /requirements/build.txt
WORKDIR /source
COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml ./
COPY requirements/platform.txt requirements/
COPY release_platform release_platform
COPY serving serving
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel .

FROM base AS platform
ARG PIP_INDEX_URL
COPY requirements/platform.txt /requirements/
RUN --mount=type=cache,target=/var/cache/pip,sharing=locked pip install --quiet --require-hashes -r /requirements/platform.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel pip install --quiet --no-deps --no-index /wheel/*.whl
# The instance is the one of the command line, with its storage in PostgreSQL.
COPY dagster.yaml deploy/dagster/storage.yaml /opt/dagster/
RUN cat /opt/dagster/storage.yaml >> /opt/dagster/dagster.yaml && rm /opt/dagster/storage.yaml \
    && install -d -o app -g app -m 700 /keys && install -d -o app -g app /keys/trusted /var/lib/dagster /var/lib/release \
    && install -d -o app -g app -m 700 /api-keys
COPY deploy/dagster/workspace.yaml /opt/dagster/
ENV DAGSTER_HOME=/opt/dagster RELEASE_HOME=/var/lib/release
USER 10001:10001
WORKDIR /srv
CMD ["release", "--help"]

# With the programs that dump and restore PostgreSQL: of the server's version or newer, see POSTGRES_IMAGE.
FROM platform AS backup
USER root
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends 'postgresql-client-15' >/dev/null \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM base AS serving
ARG PIP_INDEX_URL
COPY requirements/serving.txt /requirements/
RUN --mount=type=cache,target=/var/cache/pip,sharing=locked pip install --quiet --require-hashes -r /requirements/serving.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel pip install --quiet --no-deps --no-index /wheel/*.whl \
    && install -d -o app -g app /var/cache/serving
USER 10001:10001
WORKDIR /srv
CMD ["python", "-m", "serving"]

FROM base AS mlflow
ARG PIP_INDEX_URL
COPY requirements/mlflow.txt /requirements/
RUN --mount=type=cache,target=/var/cache/pip,sharing=locked pip install --quiet --require-hashes -r /requirements/mlflow.txt
USER 10001:10001
WORKDIR /tmp
CMD ["mlflow", "server"]

FROM base AS proxy
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends 'haproxy=2.6.12-*' >/dev/null \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/proxy /etc/haproxy
USER 10001:10001
WORKDIR /tmp
CMD ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg", "-f", "/etc/haproxy/people.cfg"]

FROM base AS seaweedfs
ARG PIP_INDEX_URL
COPY requirements/seaweedfs.txt /requirements/
RUN --mount=type=cache,target=/var/cache/pip,sharing=locked pip install --quiet --require-hashes -r /requirements/seaweedfs.txt
USER 10001:10001
WORKDIR /tmp
