# One image for every role of docker-compose.yml; the command says which one.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 muster \
    && for node in local web-1 web-2 web-3; do mkdir -p /var/lib/muster/nodes/$node; done \
    && chown -R muster:muster /var/lib/muster && chmod -R go= /var/lib/muster

WORKDIR /srv/muster
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY workers ./workers
COPY config ./config
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .

USER muster
ENV MUSTER_DATA_DIR=/var/lib/muster PYTHONUNBUFFERED=1
