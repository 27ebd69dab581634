# The worker and every other command, from pinned dependencies; not root, and works with a read-only root file system.
#
#   docker build -t streamer .                                                    with PyTorch for CUDA: 4.7 GB
#   docker build -t streamer:cpu --build-arg TORCH_INDEX=<index of CPU builds> .  without CUDA's libraries: 3.4 GB less
#   docker build -t streamer:senses --build-arg EXTRAS=senses .                   and what `streamer transcribe` needs
#   docker build -t streamer:feeds --build-arg EXTRAS=feeds .                     and what `streamer capture` needs
#   docker build -t streamer:gateway --build-arg EXTRAS=gateway .                 and what `streamer gateway` needs
#   docker build -t streamer:parquet --build-arg EXTRAS=parquet .                 and what `streamer sink parquet` needs
#   docker run --rm --read-only --tmpfs /tmp -e STREAMER_KAFKA=… -e STREAMER_REDIS=… streamer
ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS build
ARG UV_VERSION=0.13.9
RUN python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action=ignore uv==${UV_VERSION} \
    && python3 -m venv --without-pip /opt/streamer
# Bytecode is made here, once: the image is run read-only, and compiling PyTorch's modules at each start takes seconds.
ENV VIRTUAL_ENV=/opt/streamer UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /src

# An index with other builds of the same versions of torch and torchaudio: these two are then taken from there without
# hashes, which no lock file has, and without what only CUDA builds need. Everything else is installed by hash.
ARG TORCH_INDEX=
COPY requirements.worker.lock ./
RUN if [ -n "${TORCH_INDEX}" ]; then \
      uv pip install --no-deps --index-url "${TORCH_INDEX}" \
        $(sed -nE 's/^(torch(audio)?==[^ ;]+).*/\1/p' requirements.worker.lock) && \
      awk '/^[A-Za-z0-9]/ { keep = /^nvidia-ml-py==/ || !/^(torch|torchaudio|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==/ } keep' \
        requirements.worker.lock > rest.lock && \
      uv pip install --no-deps --require-hashes -r rest.lock; \
    else \
      uv pip install --require-hashes -r requirements.worker.lock; \
    fi

# requirements.lock pins the build backend, which requirements.worker.lock does not name.
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY streamer streamer
COPY models models
COPY schemas schemas
# Extras of pyproject.toml beside what a worker needs, such as `senses` for `streamer transcribe`; requirements.lock has
# their versions.
ARG EXTRAS=
RUN uv pip install --no-deps --build-constraints requirements.lock . \
    && if [ -n "${EXTRAS}" ]; then uv pip install --constraints requirements.lock ".[${EXTRAS}]"; fi \
    && uv pip check

# Only compilation needs these, and the final image has no compiler, without which Triton makes no kernel.
RUN uv pip uninstall triton \
    && find /opt/streamer \( -name '*.a' -o -path '*/torch/bin/ptxas' -o -path '*/torch/include/*' \) -delete

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="streamer" \
      org.opencontainers.image.description="Streaming multimodal event processor: Kafka in, fused PyTorch inference, Redis out." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 streamer \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin streamer
# A volume that is mounted here has this owner: tokens of `streamer gateway`, files of `streamer sink parquet`.
RUN install -d -o 10001 -g 10001 /var/lib/streamer /results
COPY --from=build /opt/streamer /opt/streamer
WORKDIR /app
COPY models models
COPY schemas schemas
# HOME: the one writable place, for libraries that write to it. NVIDIA_DRIVER_CAPABILITIES: what PyTorch needs of the
# driver if the container gets a GPU.
ENV PATH=/opt/streamer/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility STREAMER_HOST=0.0.0.0 STREAMER_PORT=9100
# Numeric, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 9100
# Liveness, not readiness: a worker that waits for Kafka is not broken.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=6 \
  CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['STREAMER_PORT']}/healthz\", timeout=4)"]
ENTRYPOINT ["streamer"]
CMD ["worker"]
