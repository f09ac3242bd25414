# A coordinator with its worker. Build from the top of the repository:
#   docker build -f docker/coordinator.Dockerfile -t kinoswarm-coordinator .
#   docker run --read-only --tmpfs /tmp -v ./SWARM:/swarm -p 8700:8700 kinoswarm-coordinator
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 10001 kinoswarm

WORKDIR /opt/kinoswarm
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY protocol protocol
COPY model model
COPY coordinator coordinator
COPY node node
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu ".[coordinator,postgresql,s3]" \
    && mkdir /swarm \
    && chown kinoswarm:kinoswarm /swarm

USER 10001:10001
ENV KINOSWARM_COORDINATOR_HTTP_HOST=0.0.0.0 PYTHONDONTWRITEBYTECODE=1
VOLUME /swarm
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s CMD ["/opt/venv/bin/kinoswarm", "status", "http://127.0.0.1:8700/", "--json"]
EXPOSE 8700
ENTRYPOINT ["/opt/venv/bin/kinoswarm", "swarm", "serve", "/swarm"]
