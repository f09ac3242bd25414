# A volunteer's node on an NVIDIA card. Build from the top of the repository:
#   docker build -f docker/node.Dockerfile -t kinoswarm-node .
#   docker run --gpus all --read-only --tmpfs /tmp -v kinoswarm:/home/kinoswarm/data kinoswarm-node INVITE
FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04

# The archive of Ubuntu keeps no old versions: pinned ones would stop this build within weeks.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 kinoswarm

WORKDIR /opt/kinoswarm
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY protocol protocol
COPY model model
COPY coordinator coordinator
COPY node node
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[node]" \
    && mkdir -p /home/kinoswarm/data \
    && chown kinoswarm:kinoswarm /home/kinoswarm/data

USER 10001:10001
ENV KINOSWARM_NODE_HOME=/home/kinoswarm/data PYTHONDONTWRITEBYTECODE=1
VOLUME /home/kinoswarm/data
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s CMD ["/opt/venv/bin/kinoswarm", "status", "--alive"]
ENTRYPOINT ["/opt/venv/bin/kinoswarm", "join", "--yes", "--go"]
