# A Ray node with NVIDIA GPUs. Built from the top of the checkout:
#   docker build -f cluster/images/cuda.Dockerfile -t registry.example.com/hbtrain:0.2.0-cuda .
# CUDA 13.0, cuDNN and NCCL come with PyTorch's wheel, and the parts of CUDA 12 that FAISS needs with its own. The host
# has the driver (580 or newer) and NVIDIA's container toolkit. There is no nvcc: hbtrain uses none of the parts of
# DeepSpeed that are compiled on first use.
FROM rayproject/ray:2.60.0-py311-cpu

WORKDIR /opt/hbtrain
COPY pyproject.toml README.md LICENSE cluster/images/cuda.lock ./
COPY hbtrain ./hbtrain
COPY tune ./tune

RUN pip install --no-cache-dir --no-deps --no-build-isolation --require-hashes --requirement cuda.lock \
    && pip install --no-cache-dir --no-deps --no-build-isolation --editable .

USER 1000
ENV DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
