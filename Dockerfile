# The service as a container. How to run it, and what it needs: docs/operations.md, compose.yaml.
FROM python:3.11-slim-trixie AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/decision
COPY requirements.lock ./
RUN pip --python /opt/decision install --only-binary :all: --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY arbitration arbitration
COPY decision decision
# The build backend is pinned in the lock like everything else; once the project is built it can go.
RUN pip --python /opt/decision install --no-deps --no-build-isolation . \
    && pip --python /opt/decision uninstall --yes editables hatchling \
    && pip --python /opt/decision check

FROM python:3.11-slim-trixie
RUN groupadd --gid 10001 decision \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin decision \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=builder /opt/decision /opt/decision
COPY examples/telco /examples/telco
# pip has compiled the modules above; the root file system may be read-only, so nothing is compiled later.
ENV PATH=/opt/decision/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    DECISION_STORE=sqlite:/data/decision.db
USER 10001:10001
WORKDIR /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["decision"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
