# Two images from one file: `--target train` (the retraining job) and `--target serve` (the service).
#
#   docker build --target serve --tag opportune-serve .
#   docker build --target serve --tag opportune-serve-gpu --build-arg DEVICE=gpu .
#
# DEVICE    cpu or gpu: the base image, and the extra with the matching builds of faiss and onnxruntime.
# PIP_ARGS  options for every `pip install`: your package mirror, or the index with the CPU builds of torch.
#           Without the latter the train image on cpu gets the general build of torch, with its CUDA libraries.
ARG DEVICE=cpu

FROM python:3.11-slim-bookworm AS base-cpu

# onnxruntime finds its CUDA 13 and cuDNN libraries in this base; the serving image has no torch to bring them.
FROM nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04 AS base-gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# DL3006: the stage chosen here is one of the two tagged ones above.
# hadolint ignore=DL3006
FROM base-${DEVICE} AS base
# The working directory, the home directory and the volume are one: the embedded PostgreSQL writes its state there. It
# refuses to run as root, and knows who connects by the names in /etc/passwd: run with another --user, it needs one.
ENV HOME=/var/lib/opportune \
    LANG=C.UTF-8 \
    PATH=/opt/opportune/bin:$PATH \
    PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --home-dir /var/lib/opportune --create-home opportune

FROM base AS build
ARG DEVICE
ARG PIP_ARGS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
# The compiler of embeddings/kernel/module.cpp; the GPU's base has no headers of Python either.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/opportune
COPY . .
# PIP_ARGS is a list of options, so it must be split into words.
# hadolint ignore=SC2086
RUN pip install ${PIP_ARGS} -c constraints.txt ".[${DEVICE}]"

FROM build AS build-train
# hadolint ignore=SC2086
RUN pip install ${PIP_ARGS} -c constraints.txt ".[${DEVICE},train]"

FROM base AS train
# implicit is linked to the system's OpenMP library.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-train /opt/opportune /opt/opportune
WORKDIR /var/lib/opportune
USER 10001
VOLUME ["/var/lib/opportune"]
ENTRYPOINT ["opportune-train", "--store", "/var/lib/opportune/store"]

FROM base AS serve
COPY --from=build /opt/opportune /opt/opportune
WORKDIR /var/lib/opportune
USER 10001
VOLUME ["/var/lib/opportune"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["opportune-serve", "--store", "/var/lib/opportune/store", "--host", "0.0.0.0", "--port", "8000"]
