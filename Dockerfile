# One image for every role of docker-compose.yml; the command says which one.
FROM python:3.12-slim

# A volume takes its owner and mode from the directory that it is mounted over.
RUN useradd --create-home --uid 1000 muster \
    && install -d -o muster -g muster -m 0700 /var/lib/muster /var/lib/muster-node /var/lib/muster-secrets /var/lib/muster-blobs \
       /enrolment /enrolment/local /enrolment/web-1 /enrolment/web-2 /enrolment/web-3

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
