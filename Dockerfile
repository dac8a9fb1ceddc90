# The image of the meter and its jobs:
#
#   docker build --build-arg REVISION=$(git rev-parse HEAD) -t registry.example.com/tokenworks:0.1.0 .
#
# tests/stacks/test_image.py runs these very steps in a folder, without Docker.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
COPY constraints-image.txt ./
RUN python -m venv /opt/tokenworks
# Each file is the one whose hash stands here, or nothing is installed.
RUN /opt/tokenworks/bin/pip install --no-cache-dir --require-hashes -r constraints-image.txt
COPY pyproject.toml README.md LICENSE ./
COPY sdk sdk
COPY meter meter
COPY billing billing
COPY cli cli
COPY migrations migrations
RUN /opt/tokenworks/bin/pip install --no-cache-dir --no-deps --no-build-isolation ./sdk .
# What only building needs.
RUN /opt/tokenworks/bin/pip uninstall --yes --quiet \
    hatchling packaging pathspec pluggy tomlkit trove-classifiers setuptools pip

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tokenworks" \
      org.opencontainers.image.description="The meter and the till of a token factory" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/tokenworks /opt/tokenworks
ENV PATH=/opt/tokenworks/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# By number, so that Kubernetes sees that it is not root; nothing here needs a name or a home.
USER 10001:10001
EXPOSE 7411 7412
STOPSIGNAL SIGTERM
# For Docker alone: Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request as it; it.urlopen('http://127.0.0.1:7412/healthz', timeout=4)"]
ENTRYPOINT ["tokenworks"]
CMD ["serve"]
