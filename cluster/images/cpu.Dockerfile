# A Ray node without a GPU. Built from the top of the checkout:
#   docker build -f cluster/images/cpu.Dockerfile -t registry.example.com/hbtrain:0.1.0-cpu .
FROM rayproject/ray:2.60.0-py311-cpu

WORKDIR /opt/hbtrain
COPY pyproject.toml README.md LICENSE cluster/images/constraints.txt ./
COPY hbtrain ./hbtrain
COPY tune ./tune

# PyTorch's own index has the build without CUDA, some gigabytes smaller.
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
    --editable '.[cpu]'

ENV DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true RAY_USAGE_STATS_ENABLED=0
