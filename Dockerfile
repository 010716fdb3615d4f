# The images of skillupdate, one target each: operator, store, trainer, and engine (tests and demo only).
#   docker build --target trainer .
# Layers are ordered by how often they change: Debian, then the libraries exactly as uv.lock pins them, then our code,
# so a change of code is one thin layer on top of six gigabytes of CUDA that nobody pushes or pulls again.
#
# Behind a company proxy:   --secret id=ca,src=company-ca.pem   --build-arg INDEX=https://mirror.example/simple
# (the index must serve the files that uv.lock names: their sha256 is checked).

ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
    && python3 -m venv --without-pip /opt/skill \
    && echo 'skill:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'skill:x:65532:' >> /etc/group
# The root file system is read-only in our pods; /tmp is a volume.
ENV PATH=/opt/skill/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1


# Everything that installs, and nothing that ships: later stages only mount /builder.
FROM python AS builder
ARG UV_VERSION=0.13.9
ARG INDEX=https://pypi.org/simple
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    mkdir /builder \
    && cat /etc/ssl/certs/ca-certificates.crt > /builder/ca.pem \
    && if [ -s /run/secrets/ca ]; then cat /run/secrets/ca >> /builder/ca.pem; fi \
    && python3 -m venv /tmp/uv \
    && PIP_CERT=/builder/ca.pem /tmp/uv/bin/pip install --quiet --no-cache-dir --index-url "$INDEX" "uv==$UV_VERSION" \
    && mv /tmp/uv/bin/uv /builder/uv \
    && rm -rf /tmp/uv
ENV SSL_CERT_FILE=/builder/ca.pem UV_DEFAULT_INDEX=$INDEX UV_CACHE_DIR=/root/.cache/uv UV_LINK_MODE=copy
RUN printf '%s\n' '#!/bin/sh' \
        "export SSL_CERT_FILE=$SSL_CERT_FILE UV_DEFAULT_INDEX=$INDEX UV_CACHE_DIR=$UV_CACHE_DIR UV_LINK_MODE=copy" \
        'exec /builder/uv pip install --python /opt/skill/bin/python --compile-bytecode --no-deps "$@"' \
        > /builder/install \
    && chmod +x /builder/install
COPY pyproject.toml uv.lock /builder/project/
# Lists of pinned files with their hashes. They are the only input of the layers with the libraries, and their time is
# fixed, so that a change elsewhere in pyproject.toml does not build those again.
RUN cd /builder/project \
    && pins() { /builder/uv export --quiet --frozen --no-dev --no-emit-project --no-header --no-annotate "$@"; } \
    && pins --extra operator > /builder/operator.txt \
    && pins --extra store > /builder/store.txt \
    && pins --extra steps > /builder/trainer.txt \
    && pins --extra steps --extra serve > /builder/engine.txt \
    && touch --date=@0 /builder/*.txt

FROM builder AS code
COPY README.md LICENSE /builder/project/
COPY operator/src /builder/project/operator/src
COPY trainer_image/src /builder/project/trainer_image/src
RUN --mount=type=cache,target=/root/.cache/uv \
    cd /builder/project \
    && /builder/uv build --quiet --wheel --out-dir /tmp/wheel \
    && /builder/install --prefix /code /tmp/wheel/*.whl


FROM python AS operator-libraries
COPY --from=builder /builder/operator.txt /opt/skill/requirements.txt
RUN --mount=type=bind,from=builder,source=/builder,target=/builder --mount=type=cache,target=/root/.cache/uv \
    /builder/install --require-hashes --requirement /opt/skill/requirements.txt

FROM python AS store-libraries
COPY --from=builder /builder/store.txt /opt/skill/requirements.txt
RUN --mount=type=bind,from=builder,source=/builder,target=/builder --mount=type=cache,target=/root/.cache/uv \
    /builder/install --require-hashes --requirement /opt/skill/requirements.txt

FROM python AS trainer-libraries
COPY --from=builder /builder/trainer.txt /opt/skill/requirements.txt
RUN --mount=type=bind,from=builder,source=/builder,target=/builder --mount=type=cache,target=/root/.cache/uv \
    /builder/install --require-hashes --requirement /opt/skill/requirements.txt

FROM trainer-libraries AS engine-libraries
COPY --from=builder /builder/engine.txt /opt/skill/requirements.txt
RUN --mount=type=bind,from=builder,source=/builder,target=/builder --mount=type=cache,target=/root/.cache/uv \
    /builder/install --require-hashes --requirement /opt/skill/requirements.txt


FROM engine-libraries AS engine
COPY --from=code /code /opt/skill
USER 65532:65532
ENTRYPOINT ["transformers", "serve"]

FROM trainer-libraries AS trainer
COPY --from=code /code /opt/skill
USER 65532:65532
ENTRYPOINT ["skill-trainer"]

FROM store-libraries AS store
COPY --from=code /code /opt/skill
USER 65532:65532
ENTRYPOINT ["skill-store"]

FROM operator-libraries AS operator
# What a start has read goes back to the system: 106 MiB at 1,000 updates, and 168 without (docs/scale.md).
ENV MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
COPY --from=code /code /opt/skill
USER 65532:65532
ENTRYPOINT ["skill-operator"]
CMD ["run"]
